import Components
import Tensor

/// What to draw and how. A value: change a field and generate again.
///
/// The defaults are those of diffusers' pipelines.
public struct GenerationRequest: Sendable {
  /// One or more; all are drawn in the same passes.
  public var prompts: [Prompt]
  /// What to stay away from: none, one for all, or one for each prompt. Without guidance they have no effect.
  public var negativePrompts: [Prompt] = []
  /// What the loop starts from.
  public var task: GenerationTask = .textToImage
  /// Pictures of each prompt.
  public var imagesPerPrompt = 1
  /// Steps of the scheduler; image-to-image leaves out some of them.
  public var steps = 50
  /// How far the prediction is pushed from the negative prompt to the prompt (`guidance_scale`, w in Imagen's equation 2);
  /// up to 1 there is no push and no second row. Networks that embed the guidance are given it instead.
  public var guidance = 7.5
  /// How much of the spread of the unguided prediction is restored, 0…1 (`guidance_rescale`, section 3.4 of arXiv:2305.08891).
  public var guidanceRescale = 0.0
  /// Pixels; nil: those of the picture that the task starts from, or what the model was trained on.
  public var width: Int?
  /// Pixels; nil: those of the picture that the task starts from, or what the model was trained on.
  public var height: Int?
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

  var shortcuts: Shortcuts { Shortcuts(stepCaching: stepCaching, tokenMerging: tokenMerging) }

  /// The pixels that the pictures of one request may have together. Beyond it a feature map alone, with the width of common decoders,
  /// takes more than 8 GB.
  public static let maximumPixels = 1 << 24
  /// The length of a prompt in UTF-8; models see far less of it.
  public static let maximumPromptBytes = 1 << 20
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

/// A picture to start from. N is 1, or divides the number of pictures of the request.
///
/// Where its sides are no multiples of what the model works in, it is resampled to the multiples below; where the request has
/// a width and a height, to those.
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
  /// `[N, H, W, 1]`: from 0.5 up is repainted.
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
