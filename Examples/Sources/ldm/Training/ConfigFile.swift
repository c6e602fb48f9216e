import Foundation

/// Options in a JSON file: `--config FILE` stands for the options that the file names.
enum ConfigFile {
  /// The command line with the options of the file that `--config` names in front of the others, so that those count more.
  ///
  /// `{"rank": 8, "flip": true, "sample-prompt": ["a", "b"]}` is `--rank 8 --flip --sample-prompt a --sample-prompt b`. What is false or null is left out.
  /// - Throws: a `Failure` for a file that cannot be read or is something else.
  static func expanded(_ arguments: [String]) throws -> [String] {
    guard arguments.count > 2, arguments[0] == "train", let (path, rest) = taken(from: Array(arguments.dropFirst(2))) else {
      return arguments
    }
    guard let data = FileManager.default.contents(atPath: path) else {
      throw Failure("\(path) cannot be read; name a JSON file with --config.")
    }
    guard let object = try? JSONDecoder().decode([String: Value].self, from: data) else {
      throw Failure("\(path) is no JSON object with options, such as {\"rank\": 8}.")
    }
    var options: [String] = []
    for (key, value) in object.sorted(by: { $0.key < $1.key }) {
      let name = "--" + key.replacing("_", with: "-")
      guard name != "--config" else { throw Failure("\(path) names a file with options itself; write them all in one.") }
      options += value.words(name)
    }
    return Array(arguments.prefix(2)) + options + rest
  }

  /// The file's name, and the other arguments; nil where there is none.
  private static func taken(from arguments: [String]) -> (path: String, rest: [String])? {
    guard let index = arguments.firstIndex(where: { $0 == "--config" || $0.hasPrefix("--config=") }) else { return nil }
    var rest = arguments
    let argument = rest.remove(at: index)
    if argument != "--config" { return (String(argument.dropFirst("--config=".count)), rest) }
    guard rest.indices.contains(index) else { return nil }
    return (rest.remove(at: index), rest)
  }

  /// What an option can be.
  private enum Value: Decodable {
    case flag(Bool)
    case word(String)
    case list([Value])
    case nothing

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if container.decodeNil() {
        self = .nothing
      } else if let flag = try? container.decode(Bool.self) {
        self = .flag(flag)
      } else if let whole = try? container.decode(Int.self) {
        self = .word("\(whole)")
      } else if let number = try? container.decode(Double.self) {
        self = .word("\(number)")
      } else if let text = try? container.decode(String.self) {
        self = .word(text)
      } else {
        self = .list(try container.decode([Value].self))
      }
    }

    /// The words of the command line that it stands for.
    func words(_ name: String) -> [String] {
      switch self {
      case .flag(let isOn): isOn ? [name] : []
      case .word(let word): [name, word]
      case .list(let values): values.flatMap { $0.words(name) }
      case .nothing: []
      }
    }
  }
}
