import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// Takes a picture into latent space and back, and measures what is lost: AutoencoderAlone [AUTOENCODER [PICTURE]].
do {
  let arguments = CommandLine.arguments.dropFirst().map { URL(filePath: $0) }, model = try EmojiModel.folder()
  let place = arguments.first ?? model
  let picture = try Picture(contentsOf: arguments.dropFirst().first ?? model.appending(path: "reference/a-red-apple.png"))

  // snippet: round trip
  let autoencoder = try AutoencoderKL.load(from: place)
  let image = picture.tensor()
  let (latents, decoded) = try await ExecutionContext().run { context in
    let latents = try autoencoder.encode(2 * image - 1, in: context).mode
    return (latents, try autoencoder.decode(latents, in: context))
  }
  let restored = (0.5 * decoded + 0.5).clamped(to: 0...1)
  // end snippet

  let error = restored - image
  let mean = (error * error).elements.reduce(0.0) { $0 + Double($1) } / Double(error.count)
  print("A picture of shape \(image.shape) has latents of shape \(latents.shape).")
  print("The picture that comes back has an error of \(String(format: "%.1f", -10 * log10(mean))) dB (PSNR).")
  try Picture(restored).write(to: URL(filePath: "restored.png"))
  print("The picture is in restored.png.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
