import ArgumentParser
import Foundation

/// Prepares a command line for the parser.
enum CommandLineArguments {
  /// `--name=` without a value becomes `--name ""`. Otherwise swift-argument-parser 1.8 takes the next word of the command line as the option's value.
  static func separatingEmptyValues(_ arguments: [String], of command: any ParsableCommand.Type) -> [String] {
    guard arguments.contains(where: { $0.hasPrefix("-") && $0.hasSuffix("=") }) else { return arguments }
    let options = optionNames(of: command)
    var result: [String] = []
    var isValue = false
    for (index, argument) in arguments.enumerated() {
      // After the terminator there are no options.
      if argument == "--", !isValue { return result + arguments[index...] }
      let name = String(argument.dropLast())
      if !isValue, argument.hasSuffix("="), options.contains(name) {
        result += [name, ""]
      } else {
        result.append(argument)
      }
      // The word after an option is its value, even if it looks like another option.
      isValue = !isValue && options.contains(argument)
    }
    return result
  }

  /// The value of an option, and the other arguments; nil where it is not there.
  static func taking(_ option: String, from arguments: [String]) -> (value: String, rest: [String])? {
    guard let index = arguments.firstIndex(where: { $0 == option || $0.hasPrefix(option + "=") }) else { return nil }
    var rest = arguments
    let argument = rest.remove(at: index)
    if argument != option { return (String(argument.dropFirst(option.count + 1)), rest) }
    guard rest.indices.contains(index) else { return nil }
    return (rest.remove(at: index), rest)
  }

  /// All values of an option.
  static func values(of option: String, in arguments: [String]) -> [String] {
    guard let (value, rest) = taking(option, from: arguments) else { return [] }
    return [value] + values(of: option, in: rest)
  }

  /// The names, with their dashes, of everything that takes a value, in all commands.
  private static func optionNames(of command: any ParsableCommand.Type) -> Set<String> {
    Set(dump(of: command)?.all.filter { $0.kind == "option" }.flatMap(\.spellings) ?? [])
  }

  /// The options and flags of each command, with their dashes.
  static func commands(of command: any ParsableCommand.Type) -> [String: Set<String>] {
    var result: [String: Set<String>] = [:]
    for command in dump(of: command)?.subcommands ?? [] {
      result[command.commandName] = Set((command.arguments ?? []).filter { $0.kind != "positional" }.flatMap(\.spellings))
    }
    return result
  }

  /// A command as the parser describes it.
  struct Command: Decodable {
    let commandName: String
    let abstract: String?
    let discussion: String?
    let shouldDisplay: Bool?
    let subcommands: [Command]?
    let arguments: [Argument]?
    var all: [Argument] { (arguments ?? []) + (subcommands ?? []).flatMap(\.all) }
  }

  /// An argument, an option or a flag.
  struct Argument: Decodable {
    struct Name: Decodable { let kind, name: String }
    let kind: String
    let names: [Name]?
    let abstract: String?
    let valueName: String?
    let shouldDisplay: Bool?
    let isOptional: Bool?
    /// What stands for its value.
    var value: String { (valueName ?? "value").uppercased() }
    var spellings: [String] { (names ?? []).map { ($0.kind == "long" ? "--" : "-") + $0.name } }
  }

  static func dump(of command: any ParsableCommand.Type) -> Command? {
    struct Dump: Decodable { let command: Command }
    return (try? JSONDecoder().decode(Dump.self, from: Data(command._dumpHelp().utf8)))?.command
  }
}
