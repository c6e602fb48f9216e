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

  /// The names, with their dashes, of everything that takes a value, in all commands.
  private static func optionNames(of command: any ParsableCommand.Type) -> Set<String> {
    struct Dump: Decodable { let command: Command }
    struct Command: Decodable {
      let subcommands: [Command]?
      let arguments: [Argument]?
      var all: [Argument] { (arguments ?? []) + (subcommands ?? []).flatMap(\.all) }
    }
    struct Argument: Decodable {
      let kind: String
      let names: [Name]?
    }
    struct Name: Decodable {
      let kind, name: String
      var spelling: String { (kind == "long" ? "--" : "-") + name }
    }
    guard let dump = try? JSONDecoder().decode(Dump.self, from: Data(command._dumpHelp().utf8)) else { return [] }
    return Set(dump.command.all.filter { $0.kind == "option" }.flatMap { $0.names ?? [] }.map(\.spelling))
  }
}
