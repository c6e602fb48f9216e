import ArgumentParser
import ImageFiles
import LatentDiffusion

extension PromptProfile: @retroactive ExpressibleByArgument {}
extension NoiseDevice: @retroactive ExpressibleByArgument {}

/// How prompts are read: as diffusers does, or another program.
struct ReadingOptions: ParsableArguments {
  @Option(
    help:
      "Whose conventions prompts follow: diffusers (plain text), webui, comfy or compel. It says how marks and clip skip are read, and what draws the noise."
  )
  var profile = PromptProfile.diffusers

  @Option(
    parsing: .unconditional,
    help: """
      Layers that the text encoder leaves out at its end, as the profile counts them: 1 of diffusers, for the prompt alone, is 1 of compel, 2 of webui and \
      -2 of comfy, for all prompts.
      """)
  var clipSkip = 0

  func validate() throws {
    let range = profile == .comfy ? -1000...0 : 0...1000
    guard range.contains(clipSkip) else {
      throw ValidationError("--clip-skip must be from \(range.lowerBound) to \(range.upperBound) with the profile \(profile.rawValue).")
    }
  }
}

extension WordOptions {
  /// A prompt for a model.
  func prompt(_ text: String, second: String? = nil, isNegative: Bool = false, for model: StableDiffusion) throws -> Prompt {
    let isXL = model.pipeline.conditioner is XLTextConditioner
    let skipped = isNegative && profile == .diffusers ? 0 : try profile.skippedLayers(clipSkip: clipSkip, isXL: isXL)
    return Prompt(text, skippedLayers: skipped, second: second, profile: profile)
  }

  /// Tells what a number does not do.
  func warn(of model: StableDiffusion, _ progress: Progress) {
    guard profile == .webui, clipSkip > 1, model.pipeline.conditioner is XLTextConditioner else { return }
    progress.warn("--clip-skip has no effect on a model of the kind of SDXL with the profile webui.")
  }

  /// Settings that are written into pictures. Their clip skip is the webui's, which counts from 1 and leaves out none there.
  var readingSettings: [GenerationParameters.Setting] {
    let number =
      switch profile {
      case .diffusers, .compel: clipSkip + 1
      case .webui: clipSkip
      case .comfy: -clipSkip
      }
    return (number > 1 ? [.init("Clip skip", "\(number)")] : []) + (profile == .diffusers ? [] : [.init("Profile", profile.rawValue)])
  }
}
