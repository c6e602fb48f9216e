// swift-tools-version: 6.2
import PackageDescription

/// A program of one file that draws with the embedded model, unless it is given another one.
func program(_ name: String, with products: [String] = []) -> Target {
  .executableTarget(
    name: name,
    dependencies: (["LatentDiffusion", "EmojiModel", "ImageFiles"] + products).map { .product(name: $0, package: "LatentDiffusion") })
}

// A package of its own: it uses the library from outside, as any program does.
let package = Package(
  name: "Examples",
  platforms: [.macOS(.v15)],
  products: [.executable(name: "ldm", targets: ["ldm"]), .executable(name: "train-shapes", targets: ["TrainShapes"])],
  traits: [.trait(name: "MPI", description: "ldm train on several machines: mpirun -n 2 ldm train …")],
  dependencies: [
    .package(name: "LatentDiffusion", path: "..", traits: [.trait(name: "MPI", condition: .when(traits: ["MPI"]))]),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
  ],
  targets: [
    .executableTarget(
      name: "ldm",
      dependencies: [
        .product(name: "LatentDiffusion", package: "LatentDiffusion"),
        .product(name: "LatentDiffusionTraining", package: "LatentDiffusion"),
        .product(name: "LatentDiffusionMPI", package: "LatentDiffusion"),
        .product(name: "EmojiModel", package: "LatentDiffusion"),
        .product(name: "ImageFiles", package: "LatentDiffusion"),
        .product(name: "LatentDiffusionVideoFiles", package: "LatentDiffusion"),
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    // Teaches the embedded model a logo.
    .executableTarget(
      name: "TrainLoRA",
      dependencies: [
        .product(name: "LatentDiffusionTraining", package: "LatentDiffusion"),
        .product(name: "EmojiModel", package: "LatentDiffusion"),
        .product(name: "ImageFiles", package: "LatentDiffusion"),
      ]),
    // Changes a picture of the embedded model by its noise.
    .executableTarget(
      name: "EditByInversion",
      dependencies: [
        .product(name: "LatentDiffusion", package: "LatentDiffusion"),
        .product(name: "EmojiModel", package: "LatentDiffusion"),
        .product(name: "ImageFiles", package: "LatentDiffusion"),
      ]),
    // Trains a network of its own layers.
    .executableTarget(name: "OwnNetwork", dependencies: [.product(name: "LatentDiffusionTraining", package: "LatentDiffusion")]),
    // A model from nothing: `make train-shapes`.
    .executableTarget(
      name: "TrainShapes",
      dependencies: [
        .product(name: "LatentDiffusion", package: "LatentDiffusion"),
        .product(name: "LatentDiffusionTraining", package: "LatentDiffusion"),
        .product(name: "ImageFiles", package: "LatentDiffusion"),
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    program("TenLines"),
    program("ChosenSettings"),
    program("MarkedPrompt"),
    program("ImageToImage"),
    program("InpaintPicture"),
    program("OutpaintPicture"),
    program("EditPicture"),
    program("HighResolution"),
    program("ClipFromWords", with: ["LatentDiffusionVideoFiles"]),
    program("Walk", with: ["LatentDiffusionVideoFiles"]),
    program("LivePreview"),
    program("PromptFile"),
    program("LimitedMemory"),
    program("SharedModel"),
    program("LatentSpace"),
    program("AutoencoderAlone"),
    program("ComposedPipeline"),
    program("OwnAutoencoder"),
    program("OwnScheduler"),
    program("OwnFamily"),
  ]
)
