import Tensor

/// Takes prompts as classes: their numbers, or the names that a model gives them.
public struct ClassConditioner: TextConditioner {
  /// How many classes there are.
  public let count: Int
  /// The numbers of classes by their names.
  public let numbers: [String: Int]

  /// - Parameters:
  ///   - count: how many classes there are.
  ///   - names: by their numbers, several for a class with commas between them (`id2label`). What is no number of a class is left out.
  public init(count: Int, names: [String: String] = [:]) {
    self.count = count
    var numbers: [String: Int] = [:]
    for (key, names) in names {
      guard let number = Int(key), (0..<count).contains(number) else { continue }
      // Of classes of the same name, the first.
      for name in names.split(separator: ",").map(Self.plain) { numbers[name] = min(number, numbers[name] ?? number) }
    }
    self.numbers = numbers
  }

  /// A name without what people write in different ways.
  private static func plain(_ name: some StringProtocol) -> String { name.trimmingPrefix { $0.isWhitespace }.lowercased() }

  /// The class of a prompt.
  /// - Throws: `ComponentError` where it is none.
  public func number(of prompt: Prompt) throws(ComponentError) -> Int {
    if let number = Int(prompt.text) ?? numbers[Self.plain(prompt.text)], (0..<count).contains(number) { return number }
    let names = numbers.isEmpty ? "" : ", or a name such as \(numbers.min { ($0.value, $0.key) < ($1.value, $1.key) }?.key ?? "")"
    throw .outOfRange(component: "The model", option: "a class", value: "\"\(prompt.text)\"", allowed: "from 0 to \(count - 1)\(names)")
  }

  /// - Returns: `class_labels`.
  /// - Throws: `ComponentError` where a prompt is no class, or none is given to stay away from.
  public func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    guard !request.isAbsent else {
      throw ComponentError.missingInput(component: "Guidance by classes", argument: "a class to stay away from (as the negative prompt)")
    }
    let labels = try request.prompts.map { Float(try number(of: $0)) }
    return Conditioning(rows: labels.count, inputs: ["class_labels": Tensor(labels)])
  }
}

/// For models that nothing guides.
public struct NoConditioner: TextConditioner {
  /// Nothing to choose.
  public init() {}

  /// - Throws: `ComponentError` for a prompt that is not empty, and for guidance.
  public func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    if request.isNegative { throw ComponentError.unsupported(component: "A model without text", option: "guidance above 1") }
    guard request.prompts.allSatisfy({ $0.text.isEmpty }) else {
      throw ComponentError.unsupported(component: "A model without text", option: "prompt")
    }
    return Conditioning(rows: request.prompts.count)
  }
}
