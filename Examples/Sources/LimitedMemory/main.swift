import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// Draws with seven tenths of the memory that a model takes otherwise: LimitedMemory [MODEL].
do {
  let folder = try CommandLine.arguments.dropFirst().first.map { URL(filePath: $0) } ?? EmojiModel.folder()
  let limit = try MemoryPlan(for: folder).predictedPeakBytes / 10 * 7

  // snippet: plan
  let plan = try MemoryPlan(for: folder, limit: limit)  // throws with the smallest limit that would do
  print(plan)  // what stays in memory, and the memory to expect
  let seconds = try plan.predictedSeconds(steps: 20, in: ExecutionContext())  // on this machine, which is measured for a moment
  print("20 steps are expected to take \(String(format: "%.1f", seconds)) seconds.")
  let model = try StableDiffusion.load(from: folder, plan: plan)
  // end snippet
  let images = try await model.pipeline.images(for: model.request("red apple", seed: 42))
  try Picture(images[0].image).write(to: URL(filePath: "limited.png"))
  print("The picture is in limited.png.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
