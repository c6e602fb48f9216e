import ArgumentParser
import Foundation

/// Writes manual pages of all commands, for `make install`.
struct ManPages: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "man", abstract: "Writes the manual pages ldm.1 and ldm-COMMAND.1 into a folder.", shouldDisplay: false)

  @Argument(help: "The folder.")
  var folder: String

  func run() throws {
    guard let tool = CommandLineArguments.dump(of: LDM.self) else { throw Failure("The commands cannot be listed.") }
    let commands = (tool.subcommands ?? []).filter { $0.shouldDisplay ?? true && $0.commandName != "help" }
    try write(ManPage(tool, named: "ldm", seeing: commands.map { "ldm-\($0.commandName)" }, commands: commands))
    for command in commands {
      let own = (command.subcommands ?? []).filter { $0.commandName != "help" }
      try write(ManPage(command, named: "ldm \(command.commandName)", seeing: ["ldm"], commands: own))
      for part in own { try write(ManPage(part, named: "ldm \(command.commandName) \(part.commandName)", seeing: ["ldm"], commands: [])) }
    }
  }

  private func write(_ page: ManPage) throws {
    try Data(page.text.utf8).writeBesideThenRename(to: URL(filePath: folder).appending(path: page.title + ".1"))
  }
}

/// A manual page in the format of man(7).
struct ManPage {
  let title: String
  let text: String

  /// - Parameters:
  ///   - command: whose options are listed.
  ///   - name: as it is called.
  ///   - others: names of pages beside this one.
  ///   - commands: that it has.
  init(_ command: CommandLineArguments.Command, named name: String, seeing others: [String], commands: [CommandLineArguments.Command]) {
    title = name.replacing(" ", with: "-")
    let arguments = (command.arguments ?? []).filter { $0.shouldDisplay ?? true }
    let positional = arguments.filter { $0.kind == "positional" }.map { ($0.isOptional ?? false) ? "[\($0.value)]" : $0.value }
    var lines = [
      ".TH \(title.uppercased()) 1 \"\" \"ldm \(LDM.version)\"", ".SH NAME", "\(title) \\- \(Self.escaped(command.abstract ?? ""))",
      ".SH SYNOPSIS", ".B \(name)",
      Self.escaped(((commands.isEmpty ? [] : ["COMMAND"]) + positional + ["[OPTIONS]"]).joined(separator: " ")),
    ]
    if let discussion = command.discussion {
      lines +=
        [".SH DESCRIPTION"]
        + discussion.split(separator: "\n", omittingEmptySubsequences: false).map { $0.isEmpty ? ".PP" : Self.escaped(String($0)) }
    }
    if !commands.isEmpty {
      lines += [".SH COMMANDS"] + commands.flatMap { [".TP", ".B \($0.commandName)", Self.escaped($0.abstract ?? "")] }
    }
    if !arguments.isEmpty { lines.append(".SH OPTIONS") }
    for argument in arguments {
      let names = argument.spellings.map { $0 + (argument.kind == "option" ? " " + argument.value : "") }
      lines += [
        ".TP", ".B " + Self.escaped(names.isEmpty ? argument.value : names.joined(separator: ", ")), Self.escaped(argument.abstract ?? ""),
      ]
    }
    lines += [".SH SEE ALSO", others.map { ".BR \($0) (1)" }.joined(separator: "\n")]
    text = lines.joined(separator: "\n") + "\n"
  }

  /// A text in which nothing is a request of the format, on one line.
  private static func escaped(_ text: String) -> String {
    let line = text.split(whereSeparator: \.isNewline).joined(separator: " ").replacing("\\", with: "\\e").replacing("-", with: "\\-")
    return line.hasPrefix(".") || line.hasPrefix("'") ? "\\&" + line : line
  }
}
