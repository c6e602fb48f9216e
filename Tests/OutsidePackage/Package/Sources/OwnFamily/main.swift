import Foundation
import LatentDiffusion

// A family of this package's own is written as a folder, planned, loaded, drawn with, inspected, converted; and its parts are loaded one by one.

func check(_ what: String, _ isTrue: Bool) { print(isTrue ? "passed:" : "FAILED:", what) }

let root = FileManager.default.temporaryDirectory.appending(path: "squares-" + UUID().uuidString, directoryHint: .isDirectory)
defer { try? FileManager.default.removeItem(at: root) }
let folder = root.appending(path: "model", directoryHint: .isDirectory)

func write(_ text: String, _ path: String) throws {
  let file = folder.appending(path: path)
  try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
  try Data(text.utf8).write(to: file)
}
try write(
  """
  {"_class_name": "SquaresPipeline", "denoiser": ["squares", "SquareDenoiser"], "palette": ["squares", "Palette"],
   "pixels": ["squares", "PixelShuffle"], "scheduler": ["diffusers", "DDIMScheduler"]}
  """, "model_index.json")
try write(#"{"_class_name": "SquareDenoiser", "sample_size": 16}"#, "denoiser/config.json")
try write(#"{"_class_name": "Palette"}"#, "palette/config.json")
try write(#"{"_class_name": "PixelShuffle", "scaling_factor": 0.5}"#, "pixels/config.json")
try write(#"{"_class_name": "DDIMScheduler", "prediction_type": "sample", "clip_sample": false}"#, "scheduler/scheduler_config.json")

// The convolution answers nothing but its bias, so the picture is what the colour says: red, green, blue in each of the four pixels.
let colours: [[Float]] = [[0, 0, 0], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
let matrix = (0..<12 * 32).map { $0 % 32 == $0 / 32 % 3 ? Float(0.5) : 0 }
try SafetensorsWriter.write(
  [
    "convolution.weight": Tensor(shape: [12, 12, 3, 3]), "convolution.bias": Tensor(shape: [12]),
    "colour.weight": Tensor(matrix, shape: [12, 32]), "colour.bias": Tensor(shape: [12]),
  ], to: folder.appending(path: "denoiser/model.safetensors"))
try SafetensorsWriter.write(
  ["table.weight": Tensor(colours.flatMap { $0 + [Float](repeating: 0, count: 29) }, shape: [4, 32])],
  to: folder.appending(path: "palette/model.safetensors"))
try SafetensorsWriter.write(["nothing": Tensor([0])], to: folder.appending(path: "pixels/model.safetensors"))

do {
  _ = try DiffusionModel.load(from: folder)
  check("a family that nobody registered is refused", false)
} catch {
  check("a family that nobody registered is refused: \(error)", "\(error)".contains("a model for SquaresPipeline"))
}

let registry = ModelRegistry.withSquares
let plan = try MemoryPlan(for: folder, registry: registry)
check("it is planned: \(plan)", plan.extent.size == PixelSize(width: 32, height: 32) && plan.predictedPeakBytes > 38_000_000)

let model = try DiffusionModel.load(from: folder, plan: plan, registry: registry)
check("its family is known", model.family is SquaresFamily && model.warnings.isEmpty)
var request = model.request("red", seed: 1)
request.steps = 4
let red = try await model.pipeline.images(for: request)[0].image
check("it draws red: \(red.elements[0..<3])", red.shape == [1, 32, 32, 3] && red.elements[0..<3].elementsEqual([1, 0, 0]))
(request.width, request.height, request.guidance) = (20, 12, 1)
let small = try await model.pipeline.images(for: request)[0].image
check("in another size: \(small.shape)", small.shape == [1, 12, 20, 3] && small.elements[0] > 0.9)

let report = try DiffusionModel.inspect(folder, registry: registry)
check(
  "it is inspected",
  report.family == "Squares of the first kind" && report.components.allSatisfy { $0.problem == nil && ($0.unused ?? []).isEmpty })

let converted = root.appending(path: "q8")
try DiffusionModel.convert(folder, to: .q8, at: converted, registry: registry, in: ExecutionContext())
let types = try DiffusionModel.inspect(converted, registry: registry).components.first { $0.name == "denoiser" }?.elementTypes
check("it is converted as its own rule says: \(types ?? [:])", types == ["Q8_0": 1, "F16": 3])

// Components by themselves: by class from the model's folder, from their own, and of the library's classes too.
let alone = try SquareDenoiser.load(from: folder, registry: registry)
let own = try SquareDenoiser.load(from: folder.appending(path: "denoiser"))
check("a component is loaded by itself", alone.sampleSize == 16 && own.sampleSize == 16)
do {
  _ = try AutoencoderKL.load(from: folder, registry: registry)
  check("a class that the model does not have is refused", false)
} catch {
  check("a class that the model does not have is refused: \(error)", error is ModelFilesError)
}
