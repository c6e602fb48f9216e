import LatentDiffusionComponents
import Schedulers
import Tensor

/// What to draw and how. A value: change a field and generate again.
///
/// The defaults are those of diffusers' pipelines, which differ from task to task.
public struct GenerationRequest: Sendable {
  /// One or more; all are drawn in the same passes.
  public var prompts: [Prompt]
  /// What takes the place of the model's parameters, or is added to them, for this request alone.
  public var adaptation: Adaptation?
  /// What to stay away from: none, one for all, or one for each prompt. Without guidance they have no effect.
  public var negativePrompts: [Prompt] = []
  /// Takes the place of what the conditioner makes of the prompts, for walks between prompts: a row for each prompt, or one for all.
  public var conditioning: Conditioning?
  /// The same for the negative prompts.
  public var negativeConditioning: Conditioning?
  /// Of clips: prompts that later frames have, between which texts are interpolated. They go with one prompt, that of frame 0.
  public var laterPrompts: [FramePrompt] = []
  /// How clips of more frames than the predictor was trained on are drawn. Nil: in one pass, in which every frame sees all.
  public var frameWindows: FrameWindows?
  /// Pictures that say what to draw beside the prompts: one for each of the pipeline's `imageConditioners`, such as adapters, or none.
  public var imagePrompts: [ImagePrompt] = []
  /// What the loop starts from.
  public var task: any GenerationTask = TextToImage()
  /// Networks that steer the predictor by pictures; what they say is added up. Step caching cannot be had beside them.
  public var controls: [Control] = []
  /// Pictures of each prompt.
  public var imagesPerPrompt = 1
  /// η, churn, and steps that are given one by one, in the place of what the scheduler's configuration says. What is nil is left to that.
  public var sampling = SamplingSettings()
  /// Steps of the scheduler; image-to-image leaves out some of them. Until it is set: as many as `sampling` lists, or else what is usual for the task.
  public var steps: Int {
    get { chosenSteps ?? sampling.count ?? usualNow.steps }
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
  public var usual: (@Sendable (any GenerationTask) -> GenerationSettings)?
  private var usualNow: GenerationSettings { usual?(task) ?? task.usualSettings(ofConsistencyModel: false) }
  /// How predictions are combined. Nil: as the task does, by `guidance` and `guidanceRescale`; beside a method that is given `guidance` is an input of networks
  /// that embed it, and means nothing to others; what a task says of guidance means nothing.
  public var guidanceMethod: (any Guidance)?
  /// Guidance away from a network whose attention is perturbed, beside the other one and also without it. Nil: none.
  public var perturbedAttention: PerturbedAttention?
  /// s of self-attention guidance: how far predictions are pushed away from those of latents that are blurred where the network's middle looks most, beside
  /// the other guidance and also without it (`sag_scale`). It goes with pictures, and without step caching. Nil: none.
  public var selfAttentionScale: Float?
  /// The part of the steps, 0…1, in which predictions are guided; in the others there is the prompt's alone. Where another model begins or ends the denoising
  /// (`denoisingStart`, `denoisingEnd`), it is a part of that as a whole. Nil: all.
  public var guidanceInterval: ClosedRange<Double>?
  /// Steps whose prediction follows from those before, without asking the predictor: faster, and another picture. Nil: none.
  public var forecast: PredictionForecast?
  /// Factors for the features of a U-Net. Nil: none.
  public var freeU: FreeU?
  /// How much of the spread of the unguided prediction is restored, 0…1 (`guidance_rescale`, section 3.4 of arXiv:2305.08891).
  public var guidanceRescale = 0.0
  /// Pixels; nil: those of the picture that the task starts from, or what the model was trained on. Where a picture is given, one side alone
  /// decides on the other by the picture's proportions.
  public var width: Int?
  /// Pixels, as `width`.
  public var height: Int?
  /// How a picture of other proportions becomes one of this size.
  public var resizeMode = ResizeMode.stretch
  /// What models of the kind of SDXL are told of sizes; others do not look at it.
  public var sizes = SizeConditioning()
  /// The same for the negative prompts; its `original` and `target` are those of `sizes` if nil. Nil: what diffusers' pipeline makes of `sizes`.
  public var negativeSizes: SizeConditioning?
  /// The part of the denoising, 0…1, before which another model did its work (`denoising_start`). The picture of the task is taken without noise then, and its
  /// strength means nothing. Nil: none.
  public var denoisingStart: Double?
  /// The part of the denoising, 0…1, after which another model goes on (`denoising_end`). Nil: all of it.
  public var denoisingEnd: Double?
  /// Everything random follows from it.
  public var seed: UInt64
  /// The stream of random numbers of a seed; PyTorch's CPU generator by default.
  public var generator: NoiseGenerator = { TorchGenerator(seed: $0) }
  /// What schedulers that add noise in their steps draw it from. Nil: the generator goes on.
  public var stepGenerator: NoiseGenerator?
  /// Whether each picture has a seed of its own, one more than that of the picture before it, as in the webui. Otherwise one seed is for all. Not of clips.
  public var numbersSeeds = false
  /// `[N, h, w, C]`, of clips `[N, F, h, w, C]`, standard normal: takes the place of the noise drawn for the start of the loop.
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

  /// Reads all prompts and draws noise as a program does, as far as `Docs/Prompts.md` says.
  ///
  /// - Parameter device: where it draws noise; nil: where it does without being told.
  public mutating func follow(_ profile: PromptProfile, noise device: NoiseDevice? = nil) {
    for index in prompts.indices { prompts[index].profile = profile }
    for index in negativePrompts.indices { negativePrompts[index].profile = profile }
    for index in laterPrompts.indices { laterPrompts[index].prompt.profile = profile }
    (generator, stepGenerator) = profile.noise(on: device)
    numbersSeeds = profile == .webui
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
  /// The part of the steps that are run, for tasks that start from a picture; nil: the task's own.
  public var strength: Double?

  /// Settings of these values.
  public init(steps: Int, guidance: Double, strength: Double? = nil) {
    (self.steps, self.guidance, self.strength) = (steps, guidance, strength)
  }
}

/// How a picture takes another size. Source: `resize_mode` of diffusers' `VaeImageProcessor`.
public enum ResizeMode: String, Sendable, CaseIterable, Codable {
  /// Both sides for themselves; proportions may change (`default`).
  case stretch
  /// So that it covers the size; what sticks out on two sides is cut off (`crop`).
  case crop
  /// So that it fits into the size; the outermost pixels fill what is left on two sides (`fill`).
  case fill
}
