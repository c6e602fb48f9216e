import Components
import EmojiModel
import LatentDiffusion
import Layers
import Pipeline
import Tensor
import TestSupport
import Weights

// Both packages' modules of one name are in this program: one is reached by its name, the library's through its umbrella.
let names = [nameOfComponents, nameOfWeights, nameOfLayers, nameOfTestSupport, nameOfTensor, nameOfPipeline]
let model = try StableDiffusion.load(from: EmojiModel.folder())
var request = model.request("a red apple", seed: 1)
request.steps = 2
let image = try await model.pipeline.images(for: request)[0].image
print(Set(names).count == 6 && image.shape == [1, 64, 64, 3] ? "passed: modules of the same names" : "FAILED: \(names), \(image.shape)")
