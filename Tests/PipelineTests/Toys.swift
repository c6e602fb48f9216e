import LatentDiffusionComponents
import Foundation
import Pipeline
import Synchronization
import Tensor

/// Components small enough to know their results by heart. None of them comes from the library.

/// What the passes of a generation were given.
final class Diary: Sendable {
  struct Pass: Sendable {
    var shape: Shape
    var timestep: Float
    var hiddenStates: [Float]
    var guidance: Float?
    var input: Tensor
  }
  private let state = Mutex<[Pass]>([])
  var passes: [Pass] { state.withLock { $0 } }
  func note(_ pass: Pass) { state.withLock { $0.append(pass) } }
}

/// prediction = (0.5 + 0.2·text)·x + 0.1·(x, one pixel to the left) + 0.1·t/1000 + 0.3·text + Σ (k + 1)/K · 0.2 · extra channel k
/// + 0.25·sin(0.1·w), where text is the mean of its states.
struct ToyPredictor: NoisePredictor {
  var inputChannels = 4
  var outputChannels = 4
  var sampleSize: Int? = 5
  var sideMultiple = 1
  var embedsGuidance = false
  var diary = Diary()
  /// What a pass does besides.
  var interlude: @Sendable (ExecutionContext) throws -> Void = { _ in }

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    let hidden = conditioning.contexts[0], latents = latents.repeated(conditioning.rows / latents.shape[0])
    diary.note(
      .init(
        shape: latents.shape, timestep: timestep, hiddenStates: hidden.elements, guidance: conditioning.guidance.map { Float($0) },
        input: latents))
    try interlude(context)
    let (count, height, width) = (latents.shape[0], latents.shape[1], latents.shape[2])
    let (input, states) = (latents.elements, hidden.elements)
    let extras = inputChannels - outputChannels
    var result: [Float] = []
    for n in 0..<count {
      let text = states[n * states.count / count..<(n + 1) * states.count / count]
      let mean = text.reduce(0, +) / Float(text.count)
      let constant = 0.1 * timestep / 1000 + 0.3 * mean + 0.25 * sin(0.1 * (Float(conditioning.guidance ?? 1) - 1))
      let factor = 0.5 + 0.2 * mean
      for y in 0..<height {
        for x in 0..<width {
          let pixel = ((n * height + y) * width + x) * inputChannels
          let left = ((n * height + y) * width + (x + width - 1) % width) * inputChannels
          var extra: Float = 0
          for k in 0..<extras { extra += Float(k + 1) / Float(extras) * 0.2 * input[pixel + outputChannels + k] }
          for c in 0..<outputChannels { result.append(factor * input[pixel + c] + 0.1 * input[left + c] + constant + extra) }
        }
      }
    }
    return Tensor(result, shape: [count, height, width, outputChannels])
  }
}

/// The same with a variance in as many channels more: 0.3 of what is predicted, and 0.1.
struct VariancePredictor: NoisePredictor {
  var base = ToyPredictor()
  var inputChannels: Int { base.inputChannels }
  var outputChannels: Int { 2 * base.outputChannels }
  var sampleSize: Int? { base.sampleSize }

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    let predicted = try base.predict(latents, timestep: timestep, conditioning: conditioning, in: context)
    return Tensor.concatenated([predicted, predicted.map { 0.3 * $0 + 0.1 }], axis: -1)
  }
}

/// The mean of every square of pixels through a small matrix, and back by repeating pixels.
struct ToyAutoencoder: LatentAutoencoder {
  var spatialScale = 4
  var latentChannels = 4
  var latentScale: Float = 0.5

  func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    let (count, height, width) = (image.shape[0], image.shape[1] / spatialScale, image.shape[2] / spatialScale)
    let pixels = image.elements
    var mean: [Float] = []
    for n in 0..<count {
      for y in 0..<height {
        for x in 0..<width {
          var color: [Float] = [0, 0, 0]
          for dy in 0..<spatialScale {
            for dx in 0..<spatialScale {
              let pixel = ((n * image.shape[1] + y * spatialScale + dy) * image.shape[2] + x * spatialScale + dx) * 3
              for k in 0..<3 { color[k] += pixels[pixel + k] / Float(spatialScale * spatialScale) }
            }
          }
          for c in 0..<latentChannels { mean.append((0..<3).reduce(0) { $0 + Float((c * 3 + $1) % 5 - 2) / 4 * color[$1] }) }
        }
      }
    }
    let tensor = Tensor(mean, shape: [count, height, width, latentChannels])
    return .distribution(DiagonalGaussian(mean: tensor, logVariance: 0.1 * tensor - 2))
  }

  func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    let (count, height, width) = (latents.shape[0], latents.shape[1] * spatialScale, latents.shape[2] * spatialScale)
    let elements = latents.elements
    var image: [Float] = []
    for n in 0..<count {
      for y in 0..<height {
        for x in 0..<width {
          let pixel = ((n * latents.shape[1] + y / spatialScale) * latents.shape[2] + x / spatialScale) * latentChannels
          for k in 0..<3 {
            image.append((0..<latentChannels).reduce(0) { $0 + Float((k * 4 + $1) % 7 - 3) / 6 * elements[pixel + $1] })
          }
        }
      }
    }
    return Tensor(image, shape: [count, height, width, 3])
  }
}

/// Two tokens of three numbers that follow from the sum of the text's bytes.
struct ToyConditioner: TextConditioner {
  static func states(_ text: String) -> [Float] {
    let sum = text.utf8.reduce(0) { $0 + Int($1) }
    return (0..<6).map { Float(sum % 97) / 97 + 0.01 * Float($0) }
  }

  func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    Conditioning(hiddenStates: Tensor(request.prompts.flatMap { Self.states($0.text) }, shape: [request.prompts.count, 2, 3]))
  }
}

/// x ← x - prediction / steps; noised(x, ε, i) = x + (steps - i)·ε. With `stir`, a little noise at every step.
struct ToyScheduler: Scheduler {
  let steps: Int
  var order = 1
  var stir: Float = 0

  var schedule: NoiseSchedule {
    let count = steps * order
    return NoiseSchedule(
      timesteps: (0..<count).map { Float(1000 - 10 * $0) },
      levels: (0...count).map { NoiseLevel(alpha: 1, sigma: Float(count - $0), inputDivisor: Float($0 + 1)) }, initialNoiseScale: 3)
  }

  mutating func advance(_ sample: Tensor, prediction: Tensor, at step: Int, noise: inout any NoiseSource) throws -> StepResult {
    let next = sample - prediction / Float(steps)
    return StepResult(
      sample: stir > 0 ? next + stir * noise.normal(channelsLast: sample.shape) : next, predictedOriginal: sample - prediction)
  }
}

func toyPipeline(
  _ predictor: ToyPredictor = ToyPredictor(), autoencoder: ToyAutoencoder = ToyAutoencoder(), order: Int = 1, stir: Float = 0
) -> DiffusionPipeline {
  DiffusionPipeline(predictor: predictor, autoencoder: autoencoder, conditioner: ToyConditioner()) {
    ToyScheduler(steps: $0, order: order, stir: stir)
  }
}

func toyRequest(_ prompts: Prompt..., steps: Int = 4, task: any GenerationTask = TextToImage()) -> GenerationRequest {
  var request = GenerationRequest(prompts: prompts, seed: 7)
  request.steps = steps
  request.task = task
  return request
}

/// A picture whose every pixel differs from its neighbours.
func toyImage(width: Int, height: Int) -> Tensor {
  toyPixels(width: width, height: height, channels: 3) { y, x, k in Float((y * 7 + x * 3 + k * 5) % 17) / 16 }
}

/// A mask with all values from 0 to 1.
func toyMask(width: Int, height: Int) -> Tensor {
  toyPixels(width: width, height: height, channels: 1) { y, x, _ in Float((x * 3 + y * 5) % 11) / 10 }
}

func toyPixels(width: Int, height: Int, channels: Int, _ value: (_ y: Int, _ x: Int, _ channel: Int) -> Float) -> Tensor {
  var elements: [Float] = []
  for y in 0..<height {
    for x in 0..<width {
      for k in 0..<channels { elements.append(value(y, x, k)) }
    }
  }
  return Tensor(elements, shape: [1, height, width, channels])
}

/// Where two tensors are farthest apart.
func difference(_ a: [Float], _ b: [Float]) -> (value: Float, index: Int) {
  guard a.count == b.count else { return (.infinity, -1) }
  var farthest: (value: Float, index: Int) = (0, 0)
  for (index, (x, y)) in zip(a, b).enumerated() where !(abs(x - y) <= farthest.value) {
    // Anything that is not a number is as far as can be.
    guard !(x - y).isNaN else { return (.infinity, index) }
    farthest = (abs(x - y), index)
  }
  return farthest
}
