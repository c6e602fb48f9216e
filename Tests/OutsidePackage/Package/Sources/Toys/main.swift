import Foundation
import LatentDiffusion
import LatentDiffusionVideoFiles

// A pipeline of nothing but toys: the protocols suffice.

/// Red, green and blue at a pixel, in 255ths.
func colour(_ image: Tensor, row: Int, column: Int) -> [Int] {
  let start = (row * image.shape[2] + column) * 3
  return image.elements[start..<start + 3].map { Int(($0 * 255).rounded()) }
}

func check(_ what: String, _ isTrue: Bool) {
  print(isTrue ? "passed:" : "FAILED:", what)
}

var request = GenerationRequest("red", seed: 7)
request.steps = 5
request.guidance = 1
var steps: [Int] = []
let plain = try await Toys.pipeline.images(for: request) { steps.append($0.index) }
check("the size is what the predictor was made for, times the autoencoder's scale", plain[0].image.shape == [1, 12, 12, 3])
check("a step is told for each step: \(steps)", steps == [0, 1, 2, 3, 4])
check("red is red: \(colour(plain[0].image, row: 5, column: 9))", colour(plain[0].image, row: 5, column: 9) == [255, 0, 0])

// Two prompts, two pictures of each, another size, guidance.
request.prompts = ["dark", "blue"]
request.negativePrompts = ["green"]
request.guidance = 1.25
request.imagesPerPrompt = 2
(request.width, request.height) = (9, 6)
let batch = try await Toys.pipeline.images(for: request)
check("two pictures of each of two prompts, in order", batch.map(\.prompt.text) == ["dark", "dark", "blue", "blue"])
check("of the size that was asked for", batch.allSatisfy { $0.image.shape == [1, 6, 9, 3] })
// n + 1.25 (p - n), from green to dark: -1 + 1.25 · 0.5 = -0.375 → 80; 1 - 1.25 · 1.5 = -0.875 → 16.
check(
  "guidance goes on from the negative prompt: \(colour(batch[1].image, row: 0, column: 0))",
  colour(batch[1].image, row: 0, column: 0) == [80, 16, 80])

// A picture to start from, two of whose five steps are run; the rest of the noise is gone at the end, so the colour is the prompt's.
let source = Tensor((0..<12 * 12 * 3).map { Float($0 % 7) / 7 }, shape: [1, 12, 12, 3])
var repaint = GenerationRequest("blue", seed: 7)
repaint.steps = 5
repaint.guidance = 1
repaint.task = ImageToImage(.pixels(source), strength: 0.4)
let repainted = try await Toys.pipeline.images(for: repaint)[0].image
check("image-to-image ends at the prompt's colour", colour(repainted, row: 11, column: 0) == [0, 0, 255])

// The right half is repainted, the left one comes back exactly.
let mask = Tensor((0..<12 * 12).map { $0 % 12 < 6 ? 0 : 1 }, shape: [1, 12, 12, 1])
repaint.task = Inpainting(image: source, mask: mask, keepsPixelsOutsideMask: true)
let inpainted = try await Toys.pipeline.images(for: repaint)[0].image
check("inpainting paints under the mask", colour(inpainted, row: 6, column: 9) == [0, 0, 255])
check(
  "and keeps the rest exactly",
  (0..<12).allSatisfy { row in
    let range = row * 36..<row * 36 + 18
    return inpainted.elements[range] == source.elements[range]
  })

// Back and forth.
let latents = try await Toys.pipeline.encode(inpainted)
check("the autoencoder's latents", latents.shape == [1, 4, 4, 3])

// What cannot be is told as a typed error.
request.width = 10
do {
  _ = try await Toys.pipeline.images(for: request)
  check("a width that the autoencoder cannot divide is refused", false)
} catch {
  check(
    "a width that the autoencoder cannot divide is refused: \(error)",
    error as? GenerationError == .indivisibleSize(width: 10, height: 6, multiple: 3))
}

// A task that is cancelled throws.
let long = Task {
  var request = GenerationRequest("red", seed: 7)
  request.steps = 100_000
  (request.width, request.height) = (300, 300)
  return try await Toys.pipeline.images(for: request)
}
try await Task.sleep(for: .milliseconds(100))
long.cancel()
switch await long.result {
case .success: check("a cancelled generation ends", false)
case .failure(let error): check("a cancelled generation ends: \(error)", error is CancellationError)
}

// A walk between two prompts, as a clip in a file and back.
let morph = try Morph([Morph.Keyframe("red", seed: 1, time: 0), Morph.Keyframe("blue", seed: 2, time: 1)])
var walking = GenerationRequest("")
(walking.steps, walking.guidance) = (5, 1)
let walk = try await Toys.pipeline.walk(morph, frames: 3, like: walking)
let frames = try await Toys.pipeline.images(for: walk.request(0..<3)).map(\.image)
check("a walk begins at its first prompt: \(colour(frames[0], row: 5, column: 9))", colour(frames[0], row: 5, column: 9) == [255, 0, 0])
let clip = try Clip(Tensor.concatenated(frames, axis: 0), framesPerSecond: 10)
for format in [ClipFormat.webp, .png, .gif] {
  check("a clip comes back from its \(format)", try Clip(data: clip.encoded(as: format).files[0]) == clip)
}
