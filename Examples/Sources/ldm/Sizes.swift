import ArgumentParser
import ImageFiles
import LatentDiffusion

/// What Stable Diffusion XL is told of sizes.
struct SizeOptions: ParsableArguments {
  @Option(parsing: .unconditional, help: "SDXL: the size that the original had, as WIDTHxHEIGHT. Without it, that of the picture.")
  var originalSize: Sides?

  @Option(parsing: .unconditional, help: "SDXL: where the original was cut, as X,Y from its left and its top.")
  var crop: Corner?

  @Option(parsing: .unconditional, help: "SDXL: the size that the original became, as WIDTHxHEIGHT. Without it, that of the picture.")
  var targetSize: Sides?

  @Option(parsing: .unconditional, help: "SDXL: --original-size for the negative prompt.")
  var negativeOriginalSize: Sides?

  @Option(parsing: .unconditional, help: "SDXL: --crop for the negative prompt.")
  var negativeCrop: Corner?

  @Option(parsing: .unconditional, help: "SDXL: --target-size for the negative prompt.")
  var negativeTargetSize: Sides?

  @Option(parsing: .unconditional, help: "SDXL's refiner: how people like the picture, from 1 to 10. Without it, 6.")
  var aestheticScore: Double?

  @Option(parsing: .unconditional, help: "SDXL's refiner: --aesthetic-score for the negative prompt. Without it, 2.5.")
  var negativeAestheticScore: Double?

  /// A width and a height.
  struct Sides: ExpressibleByArgument {
    let size: PixelSize

    init?(argument: String) {
      let sides = argument.lowercased().split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
      guard sides.count == 2, let width = sides[0], let height = sides[1], (1...1 << 20).contains(width), (1...1 << 20).contains(height)
      else { return nil }
      size = PixelSize(width: width, height: height)
    }
  }

  /// Pixels from the left and from the top.
  struct Corner: ExpressibleByArgument {
    let crop: SizeConditioning.Crop

    init?(argument: String) {
      let numbers = argument.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
      let range = 0...1 << 20
      guard numbers.count == 2, let left = numbers[0], let top = numbers[1], range.contains(left), range.contains(top) else { return nil }
      crop = SizeConditioning.Crop(top: top, left: left)
    }
  }

  /// - Parameters:
  ///   - targets: whether the model is given the target sizes. Of two models, the refiner is not.
  ///   - scores: whether the model is given the scores. Of two models, the first is not.
  func apply(to request: inout GenerationRequest, targets: Bool = true, scores: Bool = true) {
    request.sizes = SizeConditioning(
      original: originalSize?.size, crop: crop?.crop, target: targets ? targetSize?.size : nil,
      aestheticScore: scores ? aestheticScore : nil)
    guard negativeOriginalSize != nil || negativeCrop != nil || negativeTargetSize != nil || negativeAestheticScore != nil else { return }
    request.negativeSizes = SizeConditioning(
      original: negativeOriginalSize?.size, crop: negativeCrop?.crop,
      target: targets ? negativeTargetSize?.size : nil, aestheticScore: scores ? negativeAestheticScore : nil)
  }

  /// The settings that are written into pictures.
  var settings: [GenerationParameters.Setting] {
    func sides(_ sides: Sides?) -> String? { sides.map { "\($0.size.width)x\($0.size.height)" } }
    func corner(_ corner: Corner?) -> String? { corner.map { "\($0.crop.left),\($0.crop.top)" } }
    let all = [
      ("Original size", sides(originalSize)), ("Crop", corner(crop)), ("Target size", sides(targetSize)),
      ("Negative original size", sides(negativeOriginalSize)), ("Negative crop", corner(negativeCrop)),
      ("Negative target size", sides(negativeTargetSize)), ("Aesthetic score", aestheticScore.map { "\($0)" }),
      ("Negative aesthetic score", negativeAestheticScore.map { "\($0)" }),
    ]
    return all.compactMap { name, value in value.map { .init(name, $0) } }
  }
}

/// A second model that makes the last steps.
struct RefinerOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: """
      A second model of the same latent space that makes the last steps: SDXL's refiner. Adapters, controls and pictures beside the prompt are the first \
      model's alone; --vae is of both.
      """)
  var refiner: String?

  @Option(parsing: .unconditional, help: "The part of the denoising, 0…1, after which the refiner goes on. Without it, 0.8.")
  var switchAt: Double?

  /// As diffusers' documentation has it.
  var place: Double { switchAt ?? 0.8 }

  func validate() throws {
    guard switchAt == nil || refiner != nil else { throw ValidationError("--switch-at goes with --refiner.") }
    guard place > 0, place < 1 else { throw ValidationError("--switch-at must be a number above 0 and below 1.") }
  }

  /// The settings that are written into pictures.
  func settings(_ model: ModelOptions?) -> [GenerationParameters.Setting] {
    model.map { [.init("Refiner", $0.name), .init("Refiner switch at", "\(place)")] } ?? []
  }
}
