import Foundation
import LatentDiffusionComponents
import LatentDiffusionFiles
import LatentDiffusionImageEncoder
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor
import UNet

/// Why a file is no IP-Adapter for a model.
public enum IPAdapterError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A file without the tensors of one.
  case notAnAdapter(path: String)
  /// One that does not see pictures through CLIP's image tower alone.
  case unsupported(path: String, kind: String)
  /// A tensor of another width than the model or the image encoder has.
  case wrongWidth(path: String, key: String, found: Int, expected: Int, of: String)
  /// Missing or misshapen tensors.
  case weights(path: String, WeightErrors)
  /// Tensors for layers that the model does not have.
  case leftOver(path: String, keys: [String])
  /// The model has no U-Net that could take one.
  case noUNet
  /// The U-Net draws clips by layers of its own.
  case drawsClips

  public var description: String {
    switch self {
    case .notAnAdapter(let path):
      "\(path) is no IP-Adapter: it has no tensors image_proj.… and ip_adapter.…."
    case .unsupported(let path, let kind):
      "\(path) is an IP-Adapter \(kind), which is not supported; plain ones and Plus are."
    case .wrongWidth(let path, let key, let found, let expected, let part):
      "\(path) does not fit: its \(key) is made for \(found) features, but \(part) has \(expected)."
    case .weights(let path, let errors):
      "\(path) does not fit the model: \(errors)"
    case .leftOver(let path, let keys):
      "\(path) is for another model: this one has no layer for \(keys.prefix(3).joined(separator: ", "))\(keys.count > 3 ? ", …" : "")."
    case .noUNet:
      "This model has no U-Net that attends to a text, so it can take no IP-Adapter."
    case .drawsClips:
      "This model's U-Net has layers for the frames of clips, so it can take no IP-Adapter."
    }
  }
}

extension DiffusionModel {
  /// This model with an IP-Adapter, which makes it attend to pictures beside the text. A request then has pictures for each adapter in `imagePrompts`, in
  /// the order in which they were added, or for none. Where the model was loaded with a limit on memory and a plan that does not know of the adapter,
  /// `warnings` says so.
  ///
  /// ```swift
  /// let encoder = try CLIPImageEncoder.load(from: folder.appending(path: "image_encoder"))
  /// let model = try model.adding(ipAdapter: folder.appending(path: "ip-adapter_sd15.safetensors"), imageEncoder: encoder)
  /// ```
  ///
  /// Source: Ye et al. 2023 (arXiv:2308.06721), diffusers' `load_ip_adapter`.
  ///
  /// - Parameters:
  ///   - url: a file of the published layout: `image_proj.…`, and `ip_adapter.N.to_k_ip.weight` for each layer that attends to the text.
  ///   - imageEncoder: the tower that the adapter was trained with.
  /// - Throws: `IPAdapterError`, `SafetensorsError`, `FileReadError`, `CancellationError`.
  public func adding(
    ipAdapter url: URL, imageEncoder: CLIPImageEncoder, in context: ExecutionContext = ExecutionContext()
  ) throws -> DiffusionModel {
    guard let unet = pipeline.predictor as? UNet2DConditionModel else { throw IPAdapterError.noUNet }
    var result = self
    let (conditioner, layers, report) = try IPAdapterFile(url).parts(for: unet, encoder: imageEncoder, in: context)
    result.pipeline.predictor = unet.adding(layers)
    result.pipeline.imageConditioners.append(conditioner)
    try result.pipeline.content?.add(ContentHash(sampling: [url]))
    if let plan, plan.limit != nil, !plan.isBeside(url) { result.warnings.append(.outsidePlan(name: url.lastPathComponent)) }
    if !report.unused.isEmpty { result.warnings.append(.unusedTensors(component: url.lastPathComponent, names: report.unused)) }
    return result
  }
}

/// A file with an IP-Adapter, of which all extents follow from the tensors' shapes.
struct IPAdapterFile {
  private let file: any TensorFile
  private let path: String

  init(_ url: URL) throws {
    file = try TensorFileFormat.open(url)
    path = url.path(percentEncoded: false)
    guard ["image_proj.", "ip_adapter."].allSatisfy({ part in file.names.contains { $0.hasPrefix(part) } }) else {
      throw IPAdapterError.notAnAdapter(path: path)
    }
    try refuseOthers()
  }

  /// What is left of published adapters, most of which see faces through another network.
  private func refuseOthers() throws(IPAdapterError) {
    func has(_ key: String) -> Bool { file.names.contains("image_proj." + key) }
    if file.names.contains(where: { $0.contains(".to_k_lora.") }) || has("perceiver_resampler.proj_in.weight")
      || has("proj.2.weight") && has("norm.weight")
    {
      throw .unsupported(path: path, kind: "for faces (FaceID)")
    }
    if has("proj.3.weight") { throw .unsupported(path: path, kind: "of all states (Full)") }
    guard has("proj.weight") || has("latents") else { throw .unsupported(path: path, kind: "of an unknown kind") }
  }

  /// The extents of a tensor; zeros where there is none of this rank, which loading then says.
  private func shape(_ key: String, rank: Int) -> [Int] {
    guard let shape = file.tensors["image_proj." + key]?.shape, shape.rank == rank else { return Array(repeating: 0, count: rank) }
    return shape.dimensions
  }

  /// The tensors without values, for plans.
  var extents: [TensorExtent] { file.table.extents(as: nil, by: .none) }

  /// - Parameter source: of the tensors; nil: the file.
  /// - Returns: what makes tokens of pictures, what attends to them, and a report whose unused tensors are neither.
  func parts(
    for unet: UNet2DConditionModel, encoder: CLIPImageEncoder, from source: (any WeightSource)? = nil, in context: ExecutionContext
  ) throws -> (conditioner: IPAdapterConditioner, layers: [PictureAttention], report: LoadReport) {
    guard !unet.configuration.drawsClips else { throw IPAdapterError.drawsClips }
    let projection = file.names.contains("image_proj.proj.weight") ? try plain(unet, encoder) : try plus(unet, encoder)
    do {
      let ((projected, layers), report) = try LoadReport.load(from: source ?? file, in: context) { weights in
        (try projection(weights["image_proj"]), try unet.pictureAttentions(weights: weights["ip_adapter"]))
      }
      let keys = report.unused.filter { $0.hasPrefix("image_proj.") || $0.hasPrefix("ip_adapter.") }
      guard keys.isEmpty else { throw IPAdapterError.leftOver(path: path, keys: keys) }
      return (IPAdapterConditioner(encoder: encoder, projection: projected), layers, report)
    } catch let errors as WeightErrors {
      throw IPAdapterError.weights(path: path, errors)
    }
  }

  private typealias MakeProjection = (WeightScope) throws -> IPAdapterConditioner.Projection

  private func plain(_ unet: UNet2DConditionModel, _ encoder: CLIPImageEncoder) throws -> MakeProjection {
    let (outputs, features, width) = (shape("proj.weight", rank: 2)[0], shape("proj.weight", rank: 2)[1], shape("norm.weight", rank: 1)[0])
    try check(context: width, "norm.weight", unet)
    try check("proj.weight", features, encoder.model.configuration.projectedFeatures, "what the image encoder projects pictures to")
    let tokens = outputs / width
    return { .plain(try ImageProjection(features, tokens: max(tokens, 1), contextChannels: width, weights: $0)) }
  }

  private func plus(_ unet: UNet2DConditionModel, _ encoder: CLIPImageEncoder) throws -> MakeProjection {
    let (latents, entering) = (shape("latents", rank: 3), shape("proj_in.weight", rank: 2))
    let (inner, intermediate) = (shape("layers.0.0.to_q.weight", rank: 2)[0], shape("layers.0.1.1.weight", rank: 2)[0])
    let width = shape("norm_out.weight", rank: 1)[0]
    try check(context: width, "norm_out.weight", unet)
    try check("proj_in.weight", entering[1], encoder.model.configuration.features, "a state of the image encoder")
    let heads = IPAdapterPlusImageProjection.Configuration.headChannels
    let extents = [latents[1], latents[2], inner, intermediate]
    guard extents.allSatisfy((1...ConfigurationCheck.largestExtent).contains), inner.isMultiple(of: heads) else {
      throw IPAdapterError.unsupported(
        path: path, kind: "with other parts than latents, layers.N.0.to_q of heads of \(heads), and layers.N.1.1")
    }
    let layers = (0..<100).prefix { file.names.contains("image_proj.layers.\($0).0.to_q.weight") }.count
    let configuration = IPAdapterPlusImageProjection.Configuration(
      features: entering[1], hidden: latents[2], queries: latents[1], layers: layers, inner: inner, intermediate: intermediate,
      contextChannels: width)
    return { .plus(try IPAdapterPlusImageProjection(configuration, weights: $0)) }
  }

  private func check(context width: Int, _ key: String, _ unet: UNet2DConditionModel) throws(IPAdapterError) {
    try check(key, width, unet.configuration.contextChannels, "a token of the model's text")
  }

  private func check(_ key: String, _ found: Int, _ expected: Int, _ part: String) throws(IPAdapterError) {
    guard found != expected else { return }
    throw .wrongWidth(path: path, key: "image_proj." + key, found: found, expected: expected, of: part)
  }
}
