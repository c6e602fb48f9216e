import ArgumentParser
import EmojiModel
import Foundation
import LatentDiffusion

/// `--fast`: where the files of a model or a LoRA say that it was distilled to few steps, what its makers recommend stands in front of the options of the
/// command line, which count more.
enum Fast {
  static let flag = "--fast"

  /// - Parameters:
  ///   - arguments: with a person's own defaults in front of those of the command line.
  ///   - own: how many are of the command line.
  /// - Throws: a `Failure` where nothing says that the model is a fast one, or where two files say different things.
  static func expanded(_ arguments: [String], own: Int, of command: any ParsableCommand.Type) throws -> [String] {
    guard let name = arguments.first, arguments.contains(flag), CommandLineArguments.commands(of: command)[name]?.contains(flag) == true
    else { return arguments }
    let rest = arguments.dropFirst(), place = max(0, rest.count - own)
    let (defaults, given) = (rest.prefix(place).filter { $0 != flag }, rest.dropFirst(place).filter { $0 != flag })
    let found = try origin(in: defaults + given)
    let names = Set(given.map { String($0.prefix { $0 != "=" }) })
    let (left, taken) = (found.options.filter { names.contains($0.name) }, found.options.filter { !names.contains($0.name) })
    let words = taken.flatMap { [$0.name, $0.value] }
    let kept = left.isEmpty ? "" : " What the command line says of \(left.map(\.name).joined(separator: " and ")) stays."
    Progress.note("\(flag): \(found.origin) says \(found.kind.name), so this is drawn with \(words.joined(separator: " ")).\(kept)")
    return [name] + defaults + words + given
  }

  /// Something that says how a network was distilled.
  private struct Origin {
    /// in a sentence.
    let origin: String
    let kind: Distillation
    let options: [(name: String, value: String)]
  }

  private static func origin(in arguments: [String]) throws -> Origin {
    func values(_ option: String) -> [String] { CommandLineArguments.values(of: option, in: arguments) }
    let loras = try values("--lora").map { try AdapterOptions.Lora($0) }.flatMap { try said(byAdapter: $0.path) }
    // A LoRA decides for the model that it changes.
    let found = try loras.isEmpty ? said(byModel: values("--model").last, unet: values("--unet").last) : loras
    guard let first = found.first else {
      throw Failure(
        """
        Nothing in the files of the model or of a --lora says that it was distilled to few steps (\(Distillation.names)); leave \(flag) out, and give \
        --scheduler, --steps and --guidance.
        """)
    }
    if let other = found.first(where: { $0.kind != first.kind }) {
      let (one, another) = ("\(first.origin) says \(first.kind.name)", "\(other.origin) says \(other.kind.name)")
      throw Failure("The files disagree: \(one), and \(another); leave \(flag) or one of them out.")
    }
    return first
  }

  private static func said(byAdapter path: String) throws -> [Origin] {
    try [said(in: TensorFileFormat.open(URL(filePath: path)).metadata, of: path), said(by: path)].compactMap(\.self).prefix(1).map(\.self)
  }

  /// What a network itself says comes before titles and names.
  private static func said(byModel path: String?, unet: String?) throws -> [Origin] {
    let paths = [unet, path].compactMap(\.self)
    if let found = paths.lazy.compactMap({ said(by: URL(filePath: $0), at: $0) }).first { return [found] }
    if paths.isEmpty, let found = try said(by: EmojiModel.folder(), at: "the embedded model") { return [found] }
    return paths.compactMap { said(by: $0) }
  }

  /// What stands in the configurations of a model's folder or a U-Net's, or in the header of a single file.
  private static func said(by url: URL, at path: String) -> Origin? {
    struct Configuration: Decodable {
      let _class_name: String?
      let _name_or_path: String?
      let time_cond_proj_dim: Int?
    }
    func configuration(_ name: String) -> Configuration? {
      (try? Data(contentsOf: url.appending(path: name))).flatMap { try? JSONDecoder().decode(Configuration.self, from: $0) }
    }
    let networks = ["unet/config.json", "config.json"].compactMap(configuration)
    if networks.contains(where: { $0.time_cond_proj_dim != nil }) {
      // Such a network is told the guidance, of which its family knows what is usual.
      return Origin(origin: "the U-Net of \(path)", kind: .lcm, options: Distillation.lcm.options(steps: nil, isGuided: true))
    }
    let className = configuration("scheduler/scheduler_config.json")?._class_name
    if let kind = Distillation.allCases.first(where: { $0.schedulerClass != nil && $0.schedulerClass == className }) {
      return Origin(origin: "the scheduler of \(path)", kind: kind, options: kind.options(steps: nil))
    }
    let names = networks.compactMap(\._name_or_path).compactMap { said(in: $0, as: "the configuration of \(path)") }
    return names.first ?? (try? TensorFileFormat.open(url)).flatMap { said(in: $0.metadata, of: path) }
  }

  /// Titles in a file's header: of the model specification, and of kohya's scripts.
  private static func said(in metadata: [String: String], of path: String) -> Origin? {
    ["modelspec.title", "ss_output_name"].lazy.compactMap { metadata[$0] }.compactMap { said(in: $0, as: "the title in \(path)") }.first
  }

  private static func said(by path: String) -> Origin? {
    said(in: URL(filePath: path).deletingPathExtension().lastPathComponent, as: "the name of \(path)")
  }

  private static func said(in title: String, as origin: String) -> Origin? {
    let words = title.lowercased().split { !$0.isLetter && !$0.isNumber }.map(String.init), steps = steps(in: words)
    guard let kind = Distillation.allCases.first(where: { $0.isNamed(by: words, steps: steps) }) else { return nil }
    return Origin(origin: origin, kind: kind, options: kind.options(steps: steps, isGuided: words.contains("cfg")))
  }

  /// 4 of `4step`, `4steps` and `4-steps`.
  private static func steps(in words: [String]) -> Int? {
    for (index, word) in words.enumerated() where word.hasSuffix("step") || word.hasSuffix("steps") {
      let digits = word.prefix { $0.isNumber }, before = index > 0 ? words[index - 1] : ""
      if let steps = Int(digits.isEmpty ? before : String(digits)), (1...100).contains(steps) { return steps }
    }
    return nil
  }
}

/// Ways to distil a network to few steps, and how what comes out is drawn. Sources: the model cards of LCM-LoRA, SDXL-Turbo, SDXL-Lightning, Hyper-SD and TCD.
enum Distillation: CaseIterable {
  case lcm, turbo, lightning, hyper, tcd

  var name: String {
    switch self {
    case .lcm: "LCM"
    case .turbo: "Turbo"
    case .lightning: "Lightning"
    case .hyper: "Hyper"
    case .tcd: "TCD"
    }
  }

  static var names: String { allCases.map(\.name).joined(separator: ", ") }

  /// The class of a scheduler that no other network has.
  var schedulerClass: String? {
    switch self {
    case .lcm: "LCMScheduler"
    case .tcd: "TCDScheduler"
    default: nil
    }
  }

  /// Whether a title names it. Some are words that say other things, too, unless steps or the model stand beside them.
  func isNamed(by words: [String], steps: Int?) -> Bool {
    guard words.contains(name.lowercased()) else { return false }
    return switch self {
    case .lcm, .tcd: true
    case .turbo: ["sd", "sdxl", "xl"].contains { words.contains($0) }
    case .lightning, .hyper: steps != nil
    }
  }

  /// - Parameters:
  ///   - steps: for which it was made; nil: nobody says.
  ///   - isGuided: whether guidance is still to be had, so that it stays as it is.
  func options(steps: Int?, isGuided: Bool = false) -> [(name: String, value: String)] {
    var options: [(name: String, value: String)]
    let usual: Int
    switch self {
    case .lcm: (options, usual) = ([("--scheduler", "lcm")], 4)
    case .turbo: (options, usual) = ([("--scheduler", "euler-a"), ("--timesteps", "trailing")], 1)
    case .lightning: (options, usual) = ([("--scheduler", "euler"), ("--timesteps", "trailing")], 4)
    case .hyper where steps == 1: (options, usual) = ([("--scheduler", "tcd"), ("--eta", "1")], 1)
    case .hyper: (options, usual) = ([("--scheduler", "ddim"), ("--timesteps", "trailing")], 8)
    case .tcd: (options, usual) = ([("--scheduler", "tcd"), ("--eta", "0.3")], 4)
    }
    options.append(("--steps", "\(steps ?? usual)"))
    if !isGuided { options.append(("--guidance", "1")) }
    return options
  }
}

/// For commands that draw with few steps what can be drawn so.
struct FastOptions: ParsableArguments {
  @Flag(
    help: """
      Few steps, for models and LoRAs (--lora) that were distilled to them: \(Distillation.names). Where their files say so, by what they are, a title or a \
      name, what their makers recommend is taken, unless another option says otherwise, and told.
      """)
  var fast = false

  /// The flag is gone where it was followed.
  func validate() throws {
    guard !fast else { throw ValidationError("\(Fast.flag) does not go with this command.") }
  }
}
