import Benchmark
import LatentDiffusion

/// What the engine's own development watches: kernels, then layers, then whole passes, each with one thread and with two.
let benchmarks: @Sendable () -> Void = {
  Benchmark.defaultConfiguration = .init(
    metrics: [.wallClock, .peakMemoryResident], warmupIterations: 1, maxDuration: .seconds(2), maxIterations: 1000)
  products()
  convolutions()
  normalizations()
  attentions()
  layers()
  passes()
}

/// What is measured. Its result is only there so that nothing is optimised away.
typealias Work = @Sendable (ExecutionContext) throws -> any Sendable
typealias AsyncWork = @Sendable (ExecutionContext) async throws -> any Sendable

/// A benchmark for each number of threads.
/// - Parameter prepare: makes what the work needs, and returns the work.
func measure(_ name: String, prepare: @escaping @Sendable (ExecutionContext) throws -> Work) {
  measure(name) { context -> AsyncWork in
    let work = try prepare(context)
    return { context in try await context.run { try work($0) } }
  }
}

func measure(_ name: String, prepare: @escaping @Sendable (ExecutionContext) throws -> AsyncWork) {
  for threads in [1, 2] {
    var configuration = Benchmark.defaultConfiguration
    configuration.tags = ["threads": "\(threads)"]
    Benchmark(name, configuration: configuration) { (_, prepared: Prepared) in
      blackHole(try await prepared.work(prepared.context))
    } setup: {
      let context = ExecutionContext(threads: threads)
      return Prepared(work: try prepare(context), context: context)
    }
  }
}

private struct Prepared: Sendable {
  let work: AsyncWork
  let context: ExecutionContext
}

/// A layer with random weights.
func random<Layer>(in context: ExecutionContext, _ build: (WeightScope) throws -> Layer) throws -> Layer {
  try LoadReport.load(from: RandomWeights(seed: 0), in: context, build).component
}

/// Random weights of a linear layer or a convolution.
func randomMatrix(_ shape: Shape, in context: ExecutionContext) throws -> PackedMatrix {
  try PackedMatrix(RandomWeights(seed: 0).tensor("weight", shape: shape), in: context)
}

/// Normal noise, always the same.
func noise(_ shape: Shape) -> Tensor {
  var generator = TorchGenerator(seed: 0)
  return Tensor(generator.normal(shape.count), shape: shape)
}
