import ArgumentParser
import Foundation

/// A person's own defaults: options in a JSON file that are taken as if they stood in front of those of the command line.
///
/// `{"threads": 2, "txt2img": {"model": "models/sd15", "steps": 25}}`: options of all commands that have them, and options of one command.
enum Defaults {
  /// The file that the environment variable `LDM_CONFIG` names, or `ldm/config.json` in the folder for configurations. Nil where there is none.
  private static var file: String? {
    let environment = ProcessInfo.processInfo.environment
    if let named = environment["LDM_CONFIG"] { return named.isEmpty ? nil : named }
    let folder = environment["XDG_CONFIG_HOME"].flatMap { $0.isEmpty ? nil : $0 } ?? environment["HOME"].map { $0 + "/.config" }
    return folder.map { $0 + "/ldm/config.json" }.flatMap { FileManager.default.fileExists(atPath: $0) ? $0 : nil }
  }

  /// - Throws: a `Failure` for a file that cannot be read, and for options that no command has.
  static func expanded(_ arguments: [String], of command: any ParsableCommand.Type) throws -> [String] {
    guard let path = file, let name = arguments.first, !name.hasPrefix("-") else { return arguments }
    guard let data = FileManager.default.contents(atPath: path) else { throw Failure("The defaults in \(path) cannot be read.") }
    guard let object = try? JSONDecoder().decode([String: OptionValue].self, from: data) else {
      throw Failure("The defaults in \(path) are no JSON object with options, such as {\"steps\": 20}.")
    }
    let commands = CommandLineArguments.commands(of: command)
    var general: [String: OptionValue] = [:], own: [String: OptionValue] = [:]
    for (key, value) in object {
      if case .options(let options) = value {
        guard commands[key] != nil else { throw Failure("The defaults in \(path) are for a command \(key), which ldm has not.") }
        if key == name { own = options }
      } else {
        let option = "--" + key.replacing("_", with: "-")
        guard commands.values.contains(where: { $0.contains(option) }) else {
          throw Failure("The defaults in \(path) name \(key), which is an option of no command.")
        }
        if commands[name]?.contains(option) == true { general[key] = value }
      }
    }
    return [name] + OptionValue.words(general.merging(own) { $1 }) + arguments.dropFirst()
  }
}
