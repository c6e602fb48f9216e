import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

/// `--like FILE`: what a picture says about how it was made stands in front of the options of the command line, which count more.
enum Like {
  /// Our options by the names of the settings in a picture.
  private static let options = [
    "Steps": "--steps", "CFG scale": "--guidance", "Seed": "--seed", "Beta schedule": "--betas", "Timestep spacing": "--timesteps",
    "Eta": "--eta",
    "Sigma churn": "--s-churn", "Sigma tmin": "--s-tmin", "Sigma tmax": "--s-tmax", "Sigma noise": "--s-noise", "Prompt 2": "--prompt-2",
    "Negative prompt 2": "--negative-prompt-2", "Profile": "--profile", "Step cache interval": "--step-cache",
    "Step cache order": "--step-cache-order",
    "Token merging ratio": "--merge-tokens", "Forecast interval": "--forecast", "Guidance rescale": "--guidance-rescale",
    "Guidance interval": "--guidance-interval", "PAG scale": "--pag-scale", "PAG layers": "--pag-layers",
    "PAG adaptive scale": "--pag-adaptive-scale", "SAG scale": "--sag-scale", "APG": "--apg",
    "Dynamic thresholding": "--dynamic-thresholding", "FreeU": "--freeu",
    "Original size": "--original-size", "Crop": "--crop", "Target size": "--target-size",
    "Negative original size": "--negative-original-size",
    "Negative crop": "--negative-crop", "Negative target size": "--negative-target-size", "Aesthetic score": "--aesthetic-score",
    "Negative aesthetic score": "--negative-aesthetic-score", "Denoising strength": "--strength", "Batch size": "--count",
    "Frames": "--frames", "Frames per second": "--fps", "Context length": "--context-length", "Context stride": "--context-stride",
    "Motion bucket": "--motion-bucket", "Noise augmentation": "--noise-aug", "Min guidance": "--min-guidance",
    "Decode chunk": "--decode-chunk",
  ]

  /// - Throws: a `Failure` for a file that does not say how it was made.
  static func expanded(_ arguments: [String], of command: any ParsableCommand.Type) throws -> [String] {
    guard let name = arguments.first, let (path, rest) = CommandLineArguments.taking("--like", from: Array(arguments.dropFirst())),
      let known = CommandLineArguments.commands(of: command)[name], known.contains("--like")
    else { return arguments }
    guard !path.isEmpty else { throw ValidationError("--like must be the name of a picture.") }
    let parameters = try GenerationParameters.found(in: path)
    var words: [String] = [], left: [String] = []
    func add(_ option: String, _ value: String?) -> Bool {
      guard known.contains(option) else { return false }
      words += [option] + [value].compactMap(\.self)
      return true
    }
    if !add("--prompt", parameters.prompt), !parameters.prompt.isEmpty { left.append("the prompt") }
    if !parameters.negativePrompt.isEmpty, !add("--negative-prompt", parameters.negativePrompt) { left.append("the negative prompt") }
    for setting in parameters.settings where !taken(setting, of: parameters, add) { left.append("\(setting.name) \(setting.value)") }
    let given = Set(rest.map { String($0.prefix { $0 != "=" }) })
    if given.contains("--model") { left.removeAll { $0.hasPrefix("Model ") } }
    if !left.isEmpty { Progress.warn("Not taken from \(path): \(left.joined(separator: ", ")).") }
    return [name] + words + rest
  }

  /// Takes a setting; false where no option of the command stands for it.
  private static func taken(_ setting: GenerationParameters.Setting, of all: GenerationParameters, _ add: (String, String?) -> Bool) -> Bool
  {
    let value = setting.value
    switch setting.name {
    case "Size":
      let sides = value.split(separator: "x").map(String.init)
      return sides.count == 2 && add("--width", sides[0]) && add("--height", sides[1])
    case "Sampler":
      return (try? NamedScheduler(value)) != nil && add("--scheduler", value)
    case "Schedule type":
      // The webui and ComfyUI have names for the usual spacing, too.
      guard let spacing = SigmaSpacing(rawValue: value.lowercased()) else {
        return ["automatic", "normal", "uniform"].contains(value.lowercased())
      }
      return add("--spacing", spacing.rawValue)
    case "Timesteps", "Sigmas": return add("--\(setting.name.lowercased())", value.replacing(" ", with: ","))
    case "RNG": return add("--noise", value == "NV" ? "gpu" : "cpu")
    case "Clip skip":
      guard let count = Int(value) else { return false }
      switch all["Profile"] {
      case "webui": return add("--clip-skip", "\(count)")
      case "comfy": return add("--clip-skip", "\(-count)")
      default: return add("--clip-skip", "\(max(0, count - 1))")
      }
    case "CFG plus plus", "Closed loop", "FreeNoise":
      return add(["CFG plus plus": "--cfg-plus-plus", "Closed loop": "--closed-loop"][setting.name] ?? "--free-noise", nil)
    case "Model": return value == "emoji"
    // One of several pictures is drawn with all of them.
    case "Batch pos", "Version": return true
    default: return options[setting.name].map { add($0, value) } ?? false
    }
  }
}

/// For commands that take everything from a picture that was drawn before.
struct LikeOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: """
      A picture that was made by this tool, stable-diffusion-webui or ComfyUI: what its file says about prompt, seed, steps and so on is taken, unless another \
      option says otherwise. What cannot be taken is told.
      """)
  var like: String?
}
