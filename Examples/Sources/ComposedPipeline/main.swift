import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// Puts a pipeline together by hand, out of components that are loaded one by one: ComposedPipeline [MODEL].
do {
  // snippet: pipeline
  let folder = try CommandLine.arguments.dropFirst().first.map { URL(filePath: $0) } ?? EmojiModel.folder()
  let files = try ModelFiles.open(folder)
  // step: 2
  let conditioner = try CLIPTextConditioner(tokenizer: CLIPTokenizer(of: files), model: CLIPTextModel.load(from: folder))
  // step: 3
  let predictor = try UNet2DConditionModel.load(from: folder)
  let autoencoder = try AutoencoderKL.load(from: folder)
  // step: 4
  let configuration = try files.configuration(of: "scheduler").map { try SchedulerConfiguration(json: $0) } ?? .init()
  let pipeline = DiffusionPipeline(predictor: predictor, autoencoder: autoencoder, conditioner: conditioner) { steps in
    try DPMSolverMultistepScheduler(configuration, steps: steps)
  }
  // step: 5
  var request = GenerationRequest("red apple", seed: 42)
  (request.steps, request.guidance) = (20, 4)
  let images = try await pipeline.images(for: request)
  // end snippet
  try Picture(images[0].image).write(to: URL(filePath: "composed.png"))
  print("The picture is in composed.png.")
  // end step
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
