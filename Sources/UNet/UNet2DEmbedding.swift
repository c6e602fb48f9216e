import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// What every block of the U-Net is told beside the text: the time, and what the configuration adds to it. Source: diffusers'
/// `UNet2DConditionModel.get_time_embed`, `get_class_embed` and `get_aug_embed`.
struct UNet2DEmbedding: Sendable {
  private let configuration: UNet2DConfiguration
  private let sinusoids: Timesteps
  private let time: TimestepEmbedding
  private let classes: ClassLayers?
  private let addition: TimestepEmbedding?
  private let path: String

  /// The layers of a class embedding.
  private enum ClassLayers: Sendable {
    case table(Parameter<Tensor>)
    case timestep(TimestepEmbedding)
    case identity
    case projection(TimestepEmbedding)
    case simpleProjection(Linear)
  }

  init(_ configuration: UNet2DConfiguration, weights: WeightScope) throws {
    self.configuration = configuration
    let (channels, embedding) = (configuration.levels[0].channels, configuration.timeChannels)
    sinusoids = Timesteps(channels, flipSinToCos: configuration.flipSinToCos, frequencyShift: configuration.frequencyShift)
    time = try TimestepEmbedding(
      channels, embedding: embedding, conditionChannels: configuration.conditionChannels, weights: weights["time_embedding"])
    let scope = weights["class_embedding"]
    classes =
      switch configuration.classEmbedding {
      case nil: nil
      case .table(let count)?: .table(try scope.vector("weight", shape: [count, embedding]))
      case .timestep?: .timestep(try TimestepEmbedding(channels, embedding: embedding, weights: scope))
      case .identity?: .identity
      case .projection(let inputs)?: .projection(try TimestepEmbedding(inputs, embedding: embedding, weights: scope))
      case .simpleProjection(let inputs)?: .simpleProjection(try Linear(inputs, embedding, weights: scope))
      }
    addition = try configuration.addition.map {
      try TimestepEmbedding($0.inputs, embedding: embedding, weights: weights["add_embedding"])
    }
    path = weights.prefix
  }

  var declaredInputs: [PredictorInput] {
    var inputs = configuration.conditionChannels.map { [PredictorInput("timestep_cond", shape: [$0], isRequired: false)] } ?? []
    switch configuration.classEmbedding {
    case nil: break
    case .table?, .timestep?: inputs.append(PredictorInput("class_labels", shape: []))
    case .identity?: inputs.append(PredictorInput("class_labels", shape: [configuration.timeChannels]))
    case .projection(let length)?, .simpleProjection(let length)?: inputs.append(PredictorInput("class_labels", shape: [length]))
    }
    inputs.append(PredictorInput("timesteps", shape: [], isRequired: false))
    return inputs + (configuration.addition == nil ? [] : [PredictorInput("time_ids", shape: [configuration.numbersAlone ?? 0])])
  }

  /// - Throws: `ComponentError` where the pooled text and the numbers have not the length that the layers take, or a class is not in the table.
  func check(_ conditioning: Conditioning) throws(ComponentError) {
    if case .table(let count)? = configuration.classEmbedding, let labels = conditioning.inputs["class_labels"] {
      for label in labels.elements where !(0..<Float(count)).contains(label) || label != label.rounded() {
        throw .outOfRange(component: "The U-Net", option: "a class", value: "\(label)", allowed: "a whole number from 0 to \(count - 1)")
      }
    }
    guard let addition = configuration.addition, addition.hasText else { return }
    guard let pooled = conditioning.pooled else { throw .missingInput(component: "The U-Net", argument: "the pooled text") }
    let numbers = (conditioning.inputs["time_ids"]?.shape.columns ?? 0) * addition.numberChannels
    let expected: Shape = [conditioning.rows, max(0, addition.inputs - numbers)]
    guard pooled.shape == expected else {
      throw .unexpectedShape(component: "The U-Net", argument: "pooled text", expected: expected.description, found: pooled.shape)
    }
  }

  /// - Returns: `[rows, T]`: the embedding after SiLU, as every block takes it.
  func callAsFunction(_ timestep: Float, conditioning: Conditioning, rows: Int, in context: ExecutionContext) throws -> Tensor {
    let own = conditioning.inputs["timesteps"].map { Array($0.elements) } ?? [timestep]
    let sinusoids = try sinusoids(own).repeated(own.count == rows ? 1 : rows, in: context)
    context.observer?(path + "time_proj", sinusoids)
    // If nothing tells the rows apart, one is enough unless an observer must see all of them.
    let areEqual = own.count == 1 && configuration.conditionChannels == nil && classes == nil && addition == nil && context.mayRearrange
    let distinct = areEqual ? try sinusoids.rows(0..<1, in: context) : sinusoids
    var x = try time(distinct, condition: condition(conditioning, rows: rows, in: context), in: context)
    if let classes, let labels = conditioning.inputs["class_labels"] {
      x = try x.adding(embedded(labels, by: classes, in: context), in: context)
    }
    if let addition, let numbers = conditioning.inputs["time_ids"] {
      let (pooled, numbers) = (configuration.numbersAlone == nil ? conditioning.pooled : nil, try embedded(numbers, in: context))
      let told = try pooled.map { try .concatenated([$0, numbers], axis: -1, in: context) } ?? numbers
      x = try x.adding(addition(told, in: context), in: context)
    }
    return try x.activated(.silu, in: context).repeated(rows / distinct.shape[0], in: context)
  }

  /// w is the guidance scale minus one (LCM). Source: Meng et al. 2023, with the scale of diffusers' `get_guidance_scale_embedding`.
  private func condition(_ conditioning: Conditioning, rows: Int, in context: ExecutionContext) throws -> Tensor? {
    guard let channels = configuration.conditionChannels else { return nil }
    let guidance = Timesteps(channels, flipSinToCos: false, frequencyShift: 1)([1000 * Float((conditioning.guidance ?? 1) - 1)])
    return try conditioning.inputs["timestep_cond"] ?? guidance.repeated(rows, in: context)
  }

  /// `[rows]` or `[rows, D]` → `[rows, T]`.
  private func embedded(_ labels: Tensor, by layers: ClassLayers, in context: ExecutionContext) throws -> Tensor {
    let result: Tensor
    switch layers {
    case .identity: return labels
    case .timestep(let embedding): return try embedding(sinusoids(Array(labels.elements)), in: context)
    case .projection(let embedding): return try embedding(labels, in: context)
    case .simpleProjection(let linear): result = try linear(labels, in: context)
    case .table(let table):
      // `check` has found every label in the table.
      result = try table.value(in: context).rows(at: labels.elements.map { Int($0) }, in: context)
    }
    context.observer?(path + "class_embedding", result)
    return result
  }

  /// `[rows, n]` → `[rows, n · numberChannels]`: each number as a timestep is embedded.
  private func embedded(_ numbers: Tensor, in context: ExecutionContext) throws -> Tensor {
    let channels = configuration.addition?.numberChannels ?? 0
    let each = Timesteps(channels, flipSinToCos: configuration.flipSinToCos, frequencyShift: configuration.frequencyShift)
    let result = each(Array(numbers.elements))
    context.observer?(path + "add_time_proj", result)
    return result.reshaped([numbers.shape[0], numbers.shape.columns * channels])
  }
}
