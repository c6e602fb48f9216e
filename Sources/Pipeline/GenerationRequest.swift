import LatentDiffusionComponents
import Tensor

/// What to draw and how. A value: change a field and generate again.
///
/// The defaults are those of diffusers' pipelines, which differ from task to task.
public struct GenerationRequest: Sendable {
  /// One or more; all are drawn in the same passes.
  public var prompts: [Prompt]
  /// What to stay away from: none, one for all, or one for each prompt. Without guidance they have no effect.
  public var negativePrompts: [Prompt] = []
  /// What the loop starts from.
  public var task: GenerationTask = .textToImage
  /// Pictures of each prompt.
  public var imagesPerPrompt = 1
  /// Steps of the scheduler; image-to-image leaves out some of them. Until it is set: what is usual for the task.
  public var steps: Int {
    get { chosenSteps ?? usualNow.steps }
    set { chosenSteps = newValue }
  }
  /// How far the prediction is pushed from the negative prompt to the prompt (`guidance_scale`, w in Imagen's equation 2);
  /// up to 1 there is no push and no second row. Networks that embed the guidance are given it instead. Until it is set: what is usual for the task.
  public var guidance: Double {
    get { chosenGuidance ?? usualNow.guidance }
    set { chosenGuidance = newValue }
  }
  private var chosenSteps: Int?
  private var chosenGuidance: Double?
  /// What steps and guidance are until they are set. Nil: what the pipeline that carries the request out says, or else
  /// `GenerationTask.usualSettings(ofConsistencyModel:)`.
  public var usual: (@Sendable (GenerationTask) -> GenerationSettings)?
  private var usualNow: GenerationSettings { usual?(task) ?? task.usualSettings(ofConsistencyModel: false) }
  /// How much of the spread of the unguided prediction is restored, 0…1 (`guidance_rescale`, section 3.4 of arXiv:2305.08891).
  public var guidanceRescale = 0.0
  /// Pixels; nil: those of the picture that the task starts from, or what the model was trained on. Where a picture is given, one side alone
  /// decides on the other by the picture's proportions.
  public var width: Int?
  /// Pixels, as `width`.
  public var height: Int?
  /// How a picture of other proportions becomes one of this size.
  public var resizeMode = ResizeMode.stretch
  /// Everything random follows from it.
  public var seed: UInt64
  /// The stream of random numbers of a seed; PyTorch's CPU generator by default.
  public var generator: @Sendable (UInt64) -> any NoiseSource = { TorchGenerator(seed: $0) }
  /// `[N, h, w, C]`, standard normal: takes the place of the noise drawn for the start of the loop.
  public var noise: Tensor?
  /// Lets most passes of the predictor reuse the deep features of an earlier one: faster, and another picture. Nil: every pass is whole.
  public var stepCaching: StepCaching?
  /// The part of the tokens, 0…0.75, that self-attention at the highest resolution does without: faster where pictures are large, and
  /// another picture. Nil: none.
  public var tokenMerging: Double?
  /// A preview every so many steps; nil: none.
  public var previewInterval: Int?

  /// - Parameter seed: random if not given.
  public init(prompts: [Prompt], seed: UInt64 = .random(in: 0...UInt64(UInt32.max))) {
    self.prompts = prompts
    self.seed = seed
  }

  /// - Parameter seed: random if not given.
  public init(_ prompt: Prompt, seed: UInt64 = .random(in: 0...UInt64(UInt32.max))) {
    self.init(prompts: [prompt], seed: seed)
  }

  /// The same of a text.
  /// - Parameter seed: random if not given.
  public init(_ prompt: String, seed: UInt64 = .random(in: 0...UInt64(UInt32.max))) {
    self.init(Prompt(prompt), seed: seed)
  }

  var shortcuts: Shortcuts { Shortcuts(stepCaching: stepCaching, tokenMerging: tokenMerging) }

  /// The pixels that the pictures of one request may have together. Beyond it a feature map alone, with the width of common decoders,
  /// takes more than 8 GB.
  public static let maximumPixels = 1 << 24
  /// The length of a prompt in UTF-8; models see far less of it.
  public static let maximumPromptBytes = 1 << 20
}

/// What a request can leave open.
public struct GenerationSettings: Sendable, Equatable {
  /// Steps of the scheduler.
  public var steps: Int
  /// How closely to follow the prompt.
  public var guidance: Double

  /// Settings of these values.
  public init(steps: Int, guidance: Double) { (self.steps, self.guidance) = (steps, guidance) }
}

/// How a picture takes another size. Source: `resize_mode` of diffusers' `VaeImageProcessor`.
public enum ResizeMode: String, Sendable, CaseIterable {
  /// Both sides for themselves; proportions may change (`default`).
  case stretch
  /// So that it covers the size; what sticks out on two sides is cut off (`crop`).
  case crop
  /// So that it fits into the size; the outermost pixels fill what is left on two sides (`fill`).
  case fill
}

/// The size of a picture in pixels.
public struct PixelSize: Sendable, Hashable {
  /// Pixels.
  public let width: Int
  /// Pixels.
  public let height: Int

  /// A size in pixels; whether a model can work in it, a generation says.
  public init(width: Int, height: Int) {
    self.width = width
    self.height = height
  }

  /// The size of about as many pixels as this one, in the proportions of a picture; for a picture without pixels, this one.
  ///
  /// - Parameter multiple: what both sides are to be multiples of.
  public func inProportions(of picture: PixelSize, multiple: Int) -> PixelSize {
    guard picture.width > 0, picture.height > 0, multiple > 0 else { return self }
    let factor = (Double(width) * Double(height) / Double(picture.width) / Double(picture.height)).squareRoot()
    func side(_ pixels: Int) -> Int { max(1, Int(min(Double(pixels) * factor / Double(multiple), 1e15).rounded())) * multiple }
    return PixelSize(width: side(picture.width), height: side(picture.height))
  }
}

/// What the loop starts from and what it keeps to.
public enum GenerationTask: Sendable {
  /// From noise alone.
  case textToImage
  /// From a picture with noise on it. `strength`, 0…1, is the part of the steps that are run.
  case imageToImage(SourceImage, strength: Double = 0.8)
  /// Repaints a part of a picture.
  case inpaint(Inpainting)
  /// Changes a picture as the prompt says; for models that take a picture beside the latents (InstructPix2Pix).
  /// `imageGuidance`, from 1 up, is how closely the result keeps to the picture (`image_guidance_scale`).
  /// - Parameter image: `[N, H, W, 3]`, 0…1.
  case edit(_ image: Tensor, imageGuidance: Double = 1.5)

  /// The part of the steps that are run, 0…1; 1 where the task starts from nothing but noise.
  public var strength: Double {
    switch self {
    case .textToImage, .edit: 1
    case .imageToImage(_, let strength): strength
    case .inpaint(let inpainting): inpainting.strength
    }
  }
}

extension GenerationTask {
  /// The defaults of diffusers' pipelines: `StableDiffusionPipeline` and its image-to-image and inpainting variants, `StableDiffusionInstructPix2PixPipeline`,
  /// `LatentConsistencyModelPipeline` and its image-to-image variant.
  ///
  /// - Parameter ofConsistencyModel: whether the model embeds the guidance.
  public func usualSettings(ofConsistencyModel: Bool) -> GenerationSettings {
    switch self {
    case .textToImage, .imageToImage:
      ofConsistencyModel ? GenerationSettings(steps: 4, guidance: 8.5) : GenerationSettings(steps: 50, guidance: 7.5)
    case .inpaint: GenerationSettings(steps: 50, guidance: 7.5)
    case .edit: GenerationSettings(steps: 100, guidance: 7.5)
    }
  }
}

/// A picture to start from. N is 1, or divides the number of pictures of the request.
///
/// Where its sides are no multiples of what the model works in, it is resampled to the multiples below; where the request has
/// a width or a height, to those, in the way of its `resizeMode`.
public enum SourceImage: Sendable {
  /// `[N, H, W, 3]`, 0…1.
  case pixels(Tensor)
  /// `[N, h, w, C]`, as a generation returns them.
  case latents(Tensor)
}

/// A picture and which part of it to repaint.
public struct Inpainting: Sendable {
  /// `[N, H, W, 3]`, 0…1.
  public var image: Tensor
  /// `[N, H, W, 1]`: from 0.5 up is repainted. One of another size than the picture is resampled to the size in the model, as diffusers does.
  public var mask: Tensor
  /// The part of the steps that are run, 0…1; at 1 nothing of what was below the mask is seen.
  public var strength = 1.0
  /// Returns the pixels outside the mask exactly as they were, instead of as the autoencoder sees them. A picture whose sides
  /// do not fit the model is then not resampled, but filled up at its right and bottom for the time of the generation.
  public var keepsPixelsOutsideMask = false

  /// - Parameters:
  ///   - image: `[N, H, W, 3]`, 0…1.
  ///   - mask: `[N, H, W, 1]`, or one for all pictures; from 0.5 up is repainted.
  ///   - strength: the part of the steps that are run, 0…1.
  ///   - keepsPixelsOutsideMask: whether the pixels outside the mask come back exactly.
  public init(image: Tensor, mask: Tensor, strength: Double = 1, keepsPixelsOutsideMask: Bool = false) {
    self.image = image
    self.mask = mask
    self.strength = strength
    self.keepsPixelsOutsideMask = keepsPixelsOutsideMask
  }
}
