import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

let model = try StableDiffusion.load(from: EmojiModel.folder())
// step: 2
let images = try await model.pipeline.images(for: model.request("a red apple", seed: 42))
// step: 3
try Picture(images[0].image).write(to: URL(filePath: "apple.png"))
