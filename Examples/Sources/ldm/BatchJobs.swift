import Foundation
import LatentDiffusion

/// A line of a file of jobs, or a part of it where its prompt names several words.
struct BatchJob: Sendable {
  /// From 0, in the file.
  let index: Int
  /// Names its files.
  let id: String
  /// What it asks for, in words of a command line.
  private let command: String
  private let options: [String]
  private let output: String?

  /// The longest file of jobs.
  private static let mostBytes = 1 << 30

  /// - Parameters:
  ///   - path: of the file; - is standard input.
  ///   - common: options for all, in front of each job's own.
  /// - Throws: a `Failure` that names the line for what is no job.
  static func read(_ path: String, common: [String]) throws -> [BatchJob] {
    let data: Data
    if path == "-" {
      data = FileHandle.standardInput.readDataToEndOfFile()
    } else {
      guard let found = FileManager.default.contents(atPath: path) else { throw Failure("The jobs in \(path) cannot be read.") }
      data = found
    }
    guard data.count <= mostBytes else {
      throw Failure("\(path) is longer than \(mostBytes >> 20) MiB; split it into several files of jobs.")
    }
    var jobs: [BatchJob] = [], names: [String: Int] = [:]
    for (number, line) in data.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
      guard line.contains(where: { !" \t\r".utf8.contains($0) }) else { continue }
      for job in try read(Data(line), number: number + 1, of: path, common: common, from: jobs.count) {
        if let before = names.updateValue(number + 1, forKey: job.id) {
          throw Failure("Lines \(before) and \(number + 1) of \(path) have the same id \(job.id); give each its own.")
        }
        jobs.append(job)
      }
    }
    return jobs
  }

  private static func read(_ line: Data, number: Int, of path: String, common: [String], from first: Int) throws -> [BatchJob] {
    guard var object = try? JSONDecoder().decode([String: OptionValue].self, from: line) else {
      throw Failure("Line \(number) of \(path) is no JSON object with options, such as {\"prompt\": \"a red apple\", \"seed\": 1}.")
    }
    func text(_ key: String) throws -> String? {
      switch object.removeValue(forKey: key) {
      case nil, .nothing: return nil
      case .word(let word) where !word.isEmpty: return word
      default: throw Failure("The \(key) in line \(number) of \(path) is no text.")
      }
    }
    let command = try text("command") ?? "txt2img", name = try text("id") ?? String(format: "%05d", number), output = try text("output")
    for file in [name, output].compactMap(\.self) where file.contains("/") || file.hasPrefix(".") || file.utf8.count > 200 {
      throw Failure(
        "\(file) in line \(number) of \(path) cannot name a file in the folder of --output: it has a / or begins with a dot, or is too long."
      )
    }
    for taken in ["checkpoint", "json", "preview"] where object[taken] != nil {
      throw Failure("Line \(number) of \(path) has \(taken), which is for a command alone; ldm batch keeps checkpoints by itself.")
    }
    guard case .word(let prompt) = object["prompt"] else {
      return [BatchJob(index: first, id: name, command: command, options: common + OptionValue.words(object), output: output)]
    }
    let prompts = Wildcards.expanded(prompt)
    return prompts.enumerated().map { index, prompt in
      object["prompt"] = .word(prompt)
      let id = prompts.count == 1 ? name : "\(name)-\(index + 1)"
      let file = prompts.count == 1 ? output : output.map { Self.numbered($0, index + 1) }
      return BatchJob(index: first + index, id: id, command: command, options: common + OptionValue.words(object), output: file)
    }
  }

  private static func numbered(_ name: String, _ number: Int) -> String {
    let url = URL(filePath: name)
    return "\(url.deletingPathExtension().lastPathComponent)-\(number)" + (url.pathExtension.isEmpty ? "" : ".\(url.pathExtension)")
  }

  /// Changes with what is asked for.
  var digest: String {
    var hash = ContentHash(command)
    for word in [output ?? ""] + options { hash.add(word) }
    return hash.description
  }

  /// The words of the command that does it.
  func words(in folder: URL, checkpoint: String) -> [String] {
    let isClip = ["txt2video", "video2video", "img2video", "morph"].contains(command)
    let file = folder.appending(path: output ?? "\(id).\(isClip ? "webp" : "png")").path(percentEncoded: false)
    return [command] + options + ["--output", file, "--checkpoint", checkpoint]
  }
}

/// Several words in one place of a prompt: `a {red|green} apple`.
enum Wildcards {
  /// The most prompts that one may become.
  private static let most = 10_000

  /// Every combination, the last place changing first. Braces without a bar, and those behind a backslash, mean themselves.
  static func expanded(_ prompt: String) -> [String] {
    var results = [""], rest = prompt[...]
    while let open = rest.firstIndex(of: "{") {
      let isEscaped = open > rest.startIndex && rest[rest.index(before: open)] == "\\"
      guard !isEscaped, let close = rest[open...].firstIndex(of: "}") else {
        results = results.map { $0 + rest[...open] }
        rest = rest[rest.index(after: open)...]
        continue
      }
      let words = rest[rest.index(after: open)..<close].split(separator: "|", omittingEmptySubsequences: false)
      let before = rest[..<open], kept = words.count > 1 && results.count * words.count <= most ? words : [rest[open...close]]
      results = results.flatMap { result in kept.map { result + before + $0 } }
      rest = rest[rest.index(after: close)...]
    }
    return results.map { $0 + rest }
  }
}
