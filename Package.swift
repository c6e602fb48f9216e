// swift-tools-version: 6.2
import PackageDescription

// OpenBLAS stands in for Accelerate where there is none.
#if os(macOS)
  let blas: [Target.Dependency] = []
  let systemLibraries: [Target] = []
  let imageLibraries: [Target.Dependency] = []
#else
  let blas: [Target.Dependency] = ["COpenBLAS"]
  let systemLibraries: [Target] = [
    .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
    .systemLibrary(name: "CPNG", pkgConfig: "libpng", providers: [.apt(["libpng-dev"])]),
    .systemLibrary(name: "CTurboJPEG", pkgConfig: "libturbojpeg", providers: [.apt(["libturbojpeg0-dev"])]),
  ]
  let imageLibraries: [Target.Dependency] = ["CPNG", "CTurboJPEG"]
#endif

let package = Package(
  name: "LatentDiffusion",
  platforms: [.macOS(.v15), .iOS(.v18)],
  products: [
    .library(name: "LatentDiffusion", targets: ["LatentDiffusion"]),
    .library(name: "EmojiModel", targets: ["EmojiModel"]),
    .library(name: "ImageFiles", targets: ["ImageFiles"]),
  ],
  targets: systemLibraries + [
    .target(name: "CKernels"),
    .target(name: "Tensor", dependencies: ["CKernels"] + blas),
    .target(name: "Components", dependencies: ["Tensor"]),
    .target(name: "Weights", dependencies: ["Tensor"]),
    .target(name: "Layers", dependencies: ["Tensor", "Weights"]),
    .target(name: "Autoencoder", dependencies: ["Tensor", "Weights", "Layers", "Components"]),
    .target(name: "UNet", dependencies: ["Tensor", "Weights", "Layers", "Components"]),
    .target(
      name: "TextEncoder", dependencies: ["Tensor", "Weights", "Layers", "Components"],
      resources: [.copy("Resources/CLIPVocabulary")]),
    .target(name: "Schedulers", dependencies: ["Tensor", "Components"]),
    .target(name: "Pipeline", dependencies: ["Tensor", "Components", "Schedulers"]),
    .target(
      name: "LatentDiffusion",
      dependencies: [
        "Tensor", "Components", "Weights", "Layers", "Autoencoder", "UNet", "TextEncoder", "Schedulers", "Pipeline",
      ]),
    .target(name: "EmojiModel", resources: [.copy("Resources/emoji")]),
    .target(name: "ImageFiles", dependencies: ["Tensor"] + imageLibraries),

    .target(name: "TestSupport", dependencies: ["Tensor", "Weights", "Components"], path: "Tests/TestSupport"),
    .testTarget(name: "TensorTests", dependencies: ["Tensor", "CKernels", "TestSupport"]),
    .testTarget(name: "WeightsTests", dependencies: ["Weights", "Tensor", "TestSupport"]),
    .testTarget(name: "LayersTests", dependencies: ["Layers", "Weights", "Tensor", "TestSupport"]),
    .testTarget(name: "AutoencoderTests", dependencies: ["Autoencoder", "Weights", "Components", "Tensor", "TestSupport"]),
    .testTarget(name: "UNetTests", dependencies: ["UNet", "Layers", "Weights", "Components", "Tensor", "TestSupport"]),
    .testTarget(name: "TextEncoderTests", dependencies: ["TextEncoder", "Weights", "Components", "Tensor", "TestSupport"]),
    .testTarget(name: "SchedulersTests", dependencies: ["Schedulers", "Components", "Tensor", "TestSupport"]),
    .testTarget(name: "PipelineTests", dependencies: ["Pipeline", "Schedulers", "Components", "Tensor", "TestSupport"]),
    .testTarget(name: "LatentDiffusionTests", dependencies: ["LatentDiffusion", "EmojiModel", "ImageFiles", "TestSupport"]),
    .testTarget(name: "ImageFilesTests", dependencies: ["ImageFiles", "Tensor", "TestSupport"]),
  ]
)
