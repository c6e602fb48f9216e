import Foundation

/// Options in a JSON file: `--config FILE` stands for the options that the file names.
enum ConfigFile {
  /// The command line with the options of the file that `--config` names in front of the others, so that those count more.
  ///
  /// `{"rank": 8, "flip": true, "sample-prompt": ["a", "b"]}` is `--rank 8 --flip --sample-prompt a --sample-prompt b`. What is false or null is left out.
  /// - Throws: a `Failure` for a file that cannot be read or is something else.
  static func expanded(_ arguments: [String]) throws -> [String] {
    guard arguments.count > 2, arguments[0] == "train",
      let (path, rest) = CommandLineArguments.taking("--config", from: Array(arguments.dropFirst(2)))
    else {
      return arguments
    }
    guard let data = FileManager.default.contents(atPath: path) else {
      throw Failure("\(path) cannot be read; name a JSON file with --config.")
    }
    guard let object = try? JSONDecoder().decode([String: OptionValue].self, from: data) else {
      throw Failure("\(path) is no JSON object with options, such as {\"rank\": 8}.")
    }
    guard !object.keys.contains("config") else { throw Failure("\(path) names a file with options itself; write them all in one.") }
    return Array(arguments.prefix(2)) + OptionValue.words(object) + rest
  }
}

/// What an option can be in JSON.
enum OptionValue: Decodable {
  case flag(Bool)
  case word(String)
  case list([OptionValue])
  case options([String: OptionValue])
  case nothing

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if container.decodeNil() {
      self = .nothing
    } else if let flag = try? container.decode(Bool.self) {
      self = .flag(flag)
    } else if let whole = try? container.decode(Int.self) {
      self = .word("\(whole)")
    } else if let large = try? container.decode(UInt64.self) {
      self = .word("\(large)")
    } else if let number = try? container.decode(Double.self) {
      self = .word("\(number)")
    } else if let text = try? container.decode(String.self) {
      self = .word(text)
    } else if let options = try? container.decode([String: OptionValue].self) {
      self = .options(options)
    } else {
      self = .list(try container.decode([OptionValue].self))
    }
  }

  /// The words of the command line that options stand for, in the order of their names. An underscore is as good as a hyphen.
  static func words(_ options: [String: OptionValue]) -> [String] {
    options.sorted { $0.key < $1.key }.flatMap { $1.words("--" + $0.replacing("_", with: "-")) }
  }

  private func words(_ name: String) -> [String] {
    switch self {
    case .flag(let isOn): isOn ? [name] : []
    case .word(let word): [name, word]
    case .list(let values): values.flatMap { $0.words(name) }
    // No option is an object: the parser says that it does not know the name.
    case .options(let options): [name] + OptionValue.words(options)
    case .nothing: []
    }
  }
}
