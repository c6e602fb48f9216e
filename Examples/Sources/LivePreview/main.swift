import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// Shows a picture while it is drawn, and stops the drawing after ten steps: LivePreview [MODEL].
do {
  let arguments = CommandLine.arguments.dropFirst()
  let model = try StableDiffusion.load(from: arguments.first.map { URL(filePath: $0) } ?? EmojiModel.folder())

  // snippet: drawing
  var request = model.request("red apple", seed: 42)
  request.previewInterval = 2
  let (steps, told) = AsyncStream.makeStream(of: GenerationStep.self)
  let drawing = Task { [request] in
    defer { told.finish() }
    for try await event in try model.pipeline.generate(request) {
      if case .step(let step) = event { told.yield(step) }
    }
  }
  // end snippet

  // snippet: showing
  for await step in steps {
    if let preview = step.preview {
      let small = Picture(preview)
      try small.resized(width: 8 * small.width, height: 8 * small.height, filter: .nearest).write(to: URL(filePath: "preview.png"))
      print("step \(step.index + 1) of \(step.count): the preview is in preview.png.")
    }
    if step.index + 1 == 10 { drawing.cancel() }
  }
  do {
    try await drawing.value
    print("The drawing has ended.")
  } catch is CancellationError {
    print("The drawing was stopped.")
  }
  // end snippet
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
