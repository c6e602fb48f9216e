import LatentDiffusionWeights

extension ModelFiles {
  /// Refuses what is no Stable Diffusion 1.x or 2.x, by the classes that `model_index.json` names and by the parts that are there: whatever else
  /// could be said of such a model would mislead.
  ///
  /// - Throws: `ModelFilesError.unsupported`, `ModelFilesError.incomplete`.
  func checkFamily() throws(ModelFilesError) {
    let path = url.path(percentEncoded: false)
    if let name = className, !Self.pipelines.contains(name) {
      throw .unsupported(path: path, family: Self.family(of: name).map { "\($0) (\(name))" } ?? "a model for \(name)")
    }
    for (component, classes) in Self.classes {
      guard let name = className(of: component), !classes.contains(name) else { continue }
      throw .unsupported(path: path, family: "a model whose \(component) is a \(Self.componentNames[name] ?? name)")
    }
    let parts = ["unet", "vae", "text_encoder"]
    let missing = parts.filter { !components.contains($0) }
    // A folder names the parts that it should have, and whoever asks for one that is missing says so.
    guard layout == .diffusers || missing.isEmpty else {
      throw .incomplete(path: path, found: parts.filter { components.contains($0) }, missing: missing)
    }
  }

  /// diffusers' classes whose components and loop are those of Stable Diffusion 1.x and 2.x.
  private static let pipelines: Set = [
    "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionInpaintPipelineLegacy",
    "StableDiffusionInstructPix2PixPipeline", "LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline",
  ]

  /// The classes of the components that are loaded.
  private static let classes: [(component: String, classes: Set<String>)] = [
    ("unet", ["UNet2DConditionModel"]), ("vae", ["AutoencoderKL"]),
    ("text_encoder", ["CLIPTextModel", "CLIPTextModelWithProjection"]), ("tokenizer", ["CLIPTokenizer", "CLIPTokenizerFast"]),
  ]

  /// What people call some other components.
  private static let componentNames = [
    "AutoencoderTiny": "tiny autoencoder (AutoencoderTiny)", "VQModel": "VQ autoencoder (VQModel)",
    "ConsistencyDecoderVAE": "consistency decoder (ConsistencyDecoderVAE)",
    "UNetSpatioTemporalConditionModel": "video U-Net (UNetSpatioTemporalConditionModel)",
  ]

  /// What people call the family of a pipeline.
  private static func family(of pipeline: String) -> String? {
    let beginnings = [
      ("OV", "an OpenVINO model"), ("Onnx", "an ONNX model"), ("ORT", "an ONNX model"), ("Flax", "a Flax (JAX) model"),
      ("StableDiffusionXL", "a Stable Diffusion XL model"), ("StableDiffusion3", "a Stable Diffusion 3 model"),
      ("StableVideoDiffusion", "a Stable Video Diffusion model"), ("StableCascade", "a Stable Cascade model"),
      ("Wuerstchen", "a Stable Cascade (Würstchen) model"), ("Flux", "a Flux model"), ("StableUnCLIP", "a Stable Diffusion unCLIP model"),
      ("StableDiffusionLatentUpscale", "a latent upscaler"), ("StableDiffusionUpscale", "a Stable Diffusion upscaler"),
      ("StableDiffusionDepth2Img", "a depth-conditioned Stable Diffusion 2"),
      ("StableDiffusionControlNet", "a Stable Diffusion with a ControlNet"),
      ("AnimateDiff", "an AnimateDiff model"), ("LDM", "a latent diffusion model of 2022"), ("AltDiffusion", "an AltDiffusion model"),
      ("Kandinsky", "a Kandinsky model"), ("PixArt", "a PixArt model"), ("IF", "a DeepFloyd IF model"), ("ZImage", "a Z-Image model"),
      ("QwenImage", "a Qwen-Image model"), ("Sana", "a Sana model"), ("Lumina", "a Lumina model"), ("Hunyuan", "a Hunyuan model"),
      ("AuraFlow", "an AuraFlow model"), ("Wan", "a Wan video model"), ("LTX", "an LTX video model"), ("CogVideo", "a CogVideoX model"),
    ]
    return beginnings.first { pipeline.hasPrefix($0.0) }?.1
  }
}

/// Something that a model's files hold and that is not used, though it may matter.
public enum LoadWarning: Sendable, Equatable, CustomStringConvertible {
  /// Tensors of a component that its network does not have.
  case unusedTensors(component: String, names: [String])
  /// Tensors of a single file that belong to no component.
  case leftOver(names: [String])
  /// A component that nothing here runs.
  case unusedComponent(name: String, className: String)

  public var description: String {
    switch self {
    case .unusedTensors(let component, let names):
      "\(Self.list(names)) of the model's \(component) \(names.count == 1 ? "is" : "are") not used."
    case .leftOver(let names):
      "\(Self.list(names)) of the file \(names.count == 1 ? "belongs" : "belong") to no part of the model and \(names.count == 1 ? "is" : "are") not used."
    case .unusedComponent(let name, let className): "The model's \(name) (\(className)) is not used."
    }
  }

  private static func list(_ names: [String]) -> String {
    let shown = names.prefix(3).joined(separator: ", ")
    return (names.count == 1 ? "The tensor " : "\(names.count) tensors (") + shown + (names.count > 3 ? ", …" : "")
      + (names.count == 1 ? "" : ")")
  }
}
