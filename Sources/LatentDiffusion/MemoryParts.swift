import Foundation
import LatentDiffusionComponents
import LatentDiffusionImageEncoder
import LatentDiffusionWeights
import Tensor
import UNet

/// The networks of a model and of what is used beside it, in one set of forms: made of the extents of their tensors, without weights.
struct MemoryParts: Sendable {
  private(set) var parts: [Part] = []
  private(set) var assembly: ModelAssembly
  /// What steers the predictor.
  private(set) var controls: [any ControlModel] = []
  /// What the components' layers asked for, by the names of the components.
  private(set) var reports: [String: LoadReport] = [:]
  /// Pictures for each of the image conditioners.
  private(set) var pictures: [Int] = []

  /// - Parameters:
  ///   - weights: the form that was asked for.
  ///   - form: that of a component of some files, given the one that was asked for.
  init(
    _ files: ModelFiles, of family: any ModelFamily, beside company: ModelCompany, weights: WeightForm?, _ match: AdapterMatch,
    registry: ModelRegistry, form: (_ files: ModelFiles, _ name: String, _ asked: WeightForm?) throws -> WeightForm?
  ) throws {
    var (parts, reports): ([Part], [String: LoadReport]) = ([], [:])
    func made(_ name: String, of files: ModelFiles, as place: String, _ role: ModelPart.Role, _ match: AdapterMatch) throws
      -> any ModelComponent
    {
      let form = try form(files, name, weights), extents = try files.extents(of: name, as: form)
      let (component, report) = try files.make(name, from: ExtentSource(extents), in: ExecutionContext())
      parts.append(Part(place, role, extents, form: form, match, onceUsed: report))
      reports[place] = report
      return component
    }
    var components: [String: any Sendable] = [:]
    for part in family.parts(of: files) where part.role != .accessory {
      components[part.name] = try made(part.name, of: files, as: part.name, part.role, match)
    }
    assembly = try family.assembled(ModelParts(components, areExtents: true))
    pictures = assembly.imageConditioners.map { _ in 1 }
    for url in company.controls {
      let (files, name) = try ModelFiles.control(at: url, registry: registry)
      guard let control = try made(name, of: files, as: url.networkName, .predictor, .none) as? any ControlModel else { continue }
      try control.check(assembly.predictor)
      controls.append(control)
    }
    (self.parts, self.reports) = (parts, reports)
    if let adapters = company.ipAdapters { try add(adapters) { try form($0, $1, nil) } }
  }

  private mutating func add(_ adapters: ModelCompany.IPAdapters, form: (ModelFiles, String) throws -> WeightForm?) throws {
    guard var unet = assembly.predictor as? UNet2DConditionModel else { throw IPAdapterError.noUNet }
    let files = try CLIPImageEncoderFiles(adapters.encoder), encoderForm = try files.form(form),
      tensors = try files.extents(as: encoderForm)
    let (encoder, report) = try files.encoder(of: ExtentSource(tensors), in: ExecutionContext())
    parts.append(Part(adapters.encoder.networkName, .conditioner, tensors, form: encoderForm, .none, onceUsed: report))
    for url in adapters.files {
      let file = try IPAdapterFile(url), extents = file.extents
      let (conditioner, layers, report) = try file.parts(for: unet, encoder: encoder, from: ExtentSource(extents), in: ExecutionContext())
      assembly.imageConditioners.append(conditioner)
      pictures.append(adapters.pictures)
      unet = unet.adding(layers)
      parts.append(Part(url.networkName, .accessory, extents, form: nil, .none, onceUsed: report))
    }
    assembly.predictor = unet
  }

  /// Whether a form was chosen for a part for which none was asked.
  func isWidened(from asked: WeightForm?) -> Bool { parts.contains { $0.form != nil && $0.form != asked } }

  func parts(_ role: ModelPart.Role) -> [Part] { parts.filter { $0.role == role } }

  /// A component's tensors.
  struct Part: Sendable {
    let name: String
    let role: ModelPart.Role
    /// Nil: as the file has them.
    let form: WeightForm?
    /// That most of the weights have.
    let elementType: NumberFormat
    /// Converted weights are no pages of a file.
    let canBeStreamed: Bool

    private let tensors: [TensorExtent]
    /// Matrices that not every generation needs.
    private let packedOnceUsed: Set<String>
    /// Bytes that adapters take beside a matrix that is streamed, or in its place.
    private let adapterBytes: [String: Int]

    init(
      _ name: String, _ role: ModelPart.Role, _ tensors: [TensorExtent], form: WeightForm?, _ match: AdapterMatch,
      onceUsed report: LoadReport
    ) {
      (self.name, self.role, self.tensors, self.form) = (name, role, tensors, form)
      let beside = tensors.filter(\.isMatrix).compactMap { tensor in
        match.bytes(of: tensor.name, in: name, shape: tensor.shape, copy: tensor.heldBytes).map { (tensor.name, $0) }
      }
      adapterBytes = Dictionary(beside) { $1 }
      packedOnceUsed = Set(report.parameters.filter { $0.residency == .packedOnceUsed }.map(\.name))
      let matrices = tensors.filter(\.isMatrix)
      canBeStreamed = form == nil || matrices.allSatisfy(\.isStreamable)
      var bytes: [NumberFormat: Int] = [:]
      for matrix in matrices { bytes[matrix.elementType, default: 0] += matrix.heldBytes }
      elementType = bytes.max { ($0.value, $1.key.name) < ($1.value, $0.key.name) }?.key ?? .float32
    }

    /// Bytes that stay in memory.
    /// - Parameter usesAll: whether what is packed once it is used will be.
    func kept(_ residency: WeightResidency, usesAll: Bool) -> Int {
      tensors.reduce(0) { sum, tensor in
        let isHeld = !tensor.isMatrix || (usesAll || !packedOnceUsed.contains(tensor.name)) && isPacked(tensor, residency)
        return sum + (isHeld ? tensor.heldBytes : adapterBytes[tensor.name] ?? 0)
      }
    }

    private func isPacked(_ tensor: TensorExtent, _ residency: WeightResidency) -> Bool {
      residency.isPacked(tensor.heldBytes) || !tensor.isStreamable && residency != .packedOnceUsed
    }

    /// Matrices that do not stay in memory.
    func streamed(_ residency: WeightResidency) -> Int {
      guard case .streamed = residency else { return 0 }
      return tensors.count { $0.isMatrix && !isPacked($0, residency) }
    }

    func streamedParameters(_ residency: WeightResidency) -> Set<String> {
      guard case .streamed = residency else { return [] }
      return Set(tensors.filter { $0.isMatrix && !isPacked($0, residency) }.map(\.name))
    }

    /// Sizes above which weights can be streamed, each of which makes a difference, the largest first.
    /// - Parameter least: matrices that take no more are not worth it.
    func thresholds(from least: Int) -> [Int] {
      guard canBeStreamed else { return [] }
      let sizes = Set(tensors.filter { $0.isMatrix && $0.isStreamable && $0.heldBytes > least }.map(\.heldBytes))
      return Array(sizes.sorted(by: >).dropFirst()) + [least]
    }
  }
}
