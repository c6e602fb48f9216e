// swift-tools-version: 6.2
import PackageDescription

// OpenBLAS stands in for Accelerate where there is none.
#if os(macOS)
  let blas: [Target.Dependency] = []
  let systemLibraries: [Target] = []
  let imageLibraries: [Target.Dependency] = []
  let videoLibraries: [Target.Dependency] = []
#else
  let blas: [Target.Dependency] = ["CLatentDiffusionOpenBLAS"]
  let systemLibraries: [Target] = [
    .systemLibrary(
      name: "CLatentDiffusionOpenBLAS", path: "Sources/COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
    .systemLibrary(
      name: "CLatentDiffusionPNG", path: "Sources/CPNG", pkgConfig: "libpng", providers: [.apt(["libpng-dev"])]),
    .systemLibrary(
      name: "CLatentDiffusionTurboJPEG", path: "Sources/CTurboJPEG", pkgConfig: "libturbojpeg", providers: [.apt(["libturbojpeg0-dev"])]),
    .systemLibrary(
      name: "CLatentDiffusionWebP", path: "Sources/CWebP", pkgConfig: "libwebp", providers: [.apt(["libwebp-dev"])]),
    // What has no pkg-config file is named by its module map: giflib, and libwebpdemux beside libwebpmux.
    .systemLibrary(
      name: "CLatentDiffusionWebPAnimation", path: "Sources/CWebPAnimation", pkgConfig: "libwebpmux", providers: [.apt(["libwebp-dev"])]),
    .systemLibrary(name: "CLatentDiffusionGIF", path: "Sources/CGIF", providers: [.apt(["libgif-dev"])]),
  ]
  let imageLibraries: [Target.Dependency] = ["CLatentDiffusionPNG", "CLatentDiffusionTurboJPEG", "CLatentDiffusionWebP"]
  let videoLibraries: [Target.Dependency] = ["CLatentDiffusionWebPAnimation", "CLatentDiffusionGIF"]
#endif

let package = Package(
  name: "LatentDiffusion",
  platforms: [.macOS(.v15), .iOS(.v18)],
  products: [
    .library(name: "LatentDiffusion", targets: ["LatentDiffusion"]),
    .library(name: "LatentDiffusionTraining", targets: ["LatentDiffusionTraining"]),
    .library(name: "LatentDiffusionMPI", targets: ["LatentDiffusionMPI"]),
    .library(name: "EmojiModel", targets: ["EmojiModel"]),
    .library(name: "ImageFiles", targets: ["ImageFiles"]),
    .library(name: "LatentDiffusionVideoFiles", targets: ["LatentDiffusionVideoFiles"]),
  ],
  traits: [.trait(name: "MPI", description: "Training on several machines, with Open MPI (libopenmpi-dev) or another implementation.")],
  targets: systemLibraries + [
    .target(name: "CLatentDiffusionKernels", path: "Sources/CKernels"),
    .target(name: "Tensor", dependencies: ["CLatentDiffusionKernels"] + blas),
    .target(name: "LatentDiffusionComponents", dependencies: ["Tensor"], path: "Sources/Components"),
    .target(name: "LatentDiffusionFiles", path: "Sources/Files"),
    .target(name: "LatentDiffusionWeights", dependencies: ["Tensor", "LatentDiffusionFiles"], path: "Sources/Weights"),
    .target(name: "LatentDiffusionLayers", dependencies: ["Tensor", "LatentDiffusionWeights"], path: "Sources/Layers"),
    .target(name: "Autoencoder", dependencies: ["Tensor", "LatentDiffusionWeights", "LatentDiffusionLayers", "LatentDiffusionComponents"]),
    .target(name: "UNet", dependencies: ["Tensor", "LatentDiffusionWeights", "LatentDiffusionLayers", "LatentDiffusionComponents"]),
    .target(
      name: "TextEncoder", dependencies: ["Tensor", "LatentDiffusionWeights", "LatentDiffusionLayers", "LatentDiffusionComponents"],
      resources: [.copy("Resources/CLIPVocabulary")]),
    .target(
      name: "LatentDiffusionImageEncoder",
      dependencies: ["Tensor", "LatentDiffusionWeights", "LatentDiffusionLayers", "LatentDiffusionComponents"], path: "Sources/ImageEncoder"
    ),
    .target(name: "Schedulers", dependencies: ["Tensor", "LatentDiffusionComponents"]),
    .target(name: "Pipeline", dependencies: ["Tensor", "LatentDiffusionFiles", "LatentDiffusionComponents", "Schedulers"]),
    .target(
      name: "LatentDiffusion",
      dependencies: [
        "Tensor", "LatentDiffusionFiles", "LatentDiffusionComponents", "LatentDiffusionWeights", "LatentDiffusionLayers", "Autoencoder",
        "UNet",
        "TextEncoder", "LatentDiffusionImageEncoder", "Schedulers", "Pipeline",
      ]),
    .target(
      name: "LatentDiffusionTraining",
      dependencies: [
        "LatentDiffusion", "LatentDiffusionTrainingData", "Tensor", "LatentDiffusionFiles", "LatentDiffusionComponents",
        "LatentDiffusionWeights", "Autoencoder", "TextEncoder", "Schedulers", "Pipeline",
      ], path: "Sources/Training"),
    .systemLibrary(
      name: "CLatentDiffusionMPI", path: "Sources/CMPI", pkgConfig: "ompi-c", providers: [.apt(["libopenmpi-dev"]), .brew(["open-mpi"])]),
    .target(
      name: "LatentDiffusionMPI",
      dependencies: [
        "LatentDiffusionTraining", "Tensor", .target(name: "CLatentDiffusionMPI", condition: .when(traits: ["MPI"])),
      ], path: "Sources/MPI"),
    .target(name: "EmojiModel", resources: [.copy("Resources/emoji")]),
    .target(name: "ImageFiles", dependencies: ["Tensor", "LatentDiffusionFiles"] + imageLibraries),
    .target(
      name: "LatentDiffusionVideoFiles", dependencies: ["Tensor", "LatentDiffusionFiles", "ImageFiles"] + videoLibraries,
      path: "Sources/VideoFiles"),
    .target(
      name: "LatentDiffusionTrainingData",
      dependencies: ["Tensor", "ImageFiles", "LatentDiffusionFiles", "LatentDiffusionComponents", "LatentDiffusionWeights"],
      path: "Sources/TrainingData"),
    // The only program here: it says where the tool is to who asks with `swift run`.
    .executableTarget(name: "where-is-ldm", path: "Sources/WhereIsLDM"),

    .target(
      name: "LatentDiffusionTestSupport", dependencies: ["Tensor", "LatentDiffusionWeights", "LatentDiffusionComponents"],
      path: "Tests/TestSupport"),
    .testTarget(name: "FilesTests", dependencies: ["LatentDiffusionFiles"]),
    .testTarget(
      name: "TensorTests", dependencies: ["Tensor", "LatentDiffusionFiles", "CLatentDiffusionKernels", "LatentDiffusionTestSupport"]),
    .testTarget(
      name: "WeightsTests", dependencies: ["LatentDiffusionWeights", "LatentDiffusionFiles", "Tensor", "LatentDiffusionTestSupport"]),
    .testTarget(
      name: "LayersTests", dependencies: ["LatentDiffusionLayers", "LatentDiffusionWeights", "Tensor", "LatentDiffusionTestSupport"]),
    .testTarget(
      name: "AutoencoderTests",
      dependencies: ["Autoencoder", "LatentDiffusionWeights", "LatentDiffusionComponents", "Tensor", "LatentDiffusionTestSupport"]),
    .testTarget(
      name: "UNetTests",
      dependencies: [
        "UNet", "LatentDiffusionLayers", "LatentDiffusionWeights", "LatentDiffusionComponents", "Tensor", "LatentDiffusionTestSupport",
      ]),
    .testTarget(
      name: "TextEncoderTests",
      dependencies: ["TextEncoder", "LatentDiffusionWeights", "LatentDiffusionComponents", "Tensor", "LatentDiffusionTestSupport"]),
    .testTarget(
      name: "ImageEncoderTests",
      dependencies: [
        "LatentDiffusionImageEncoder", "ImageFiles", "LatentDiffusionWeights", "LatentDiffusionComponents", "Tensor",
        "LatentDiffusionTestSupport",
      ]),
    .testTarget(
      name: "SchedulersTests", dependencies: ["Schedulers", "LatentDiffusionComponents", "Tensor", "LatentDiffusionTestSupport"]),
    .testTarget(
      name: "PipelineTests",
      dependencies: [
        "Pipeline", "Schedulers", "LatentDiffusionComponents", "LatentDiffusionWeights", "Tensor", "LatentDiffusionTestSupport",
      ]),
    .testTarget(name: "LatentDiffusionTests", dependencies: ["LatentDiffusion", "EmojiModel", "ImageFiles", "LatentDiffusionTestSupport"]),
    .testTarget(
      name: "TrainingTests",
      dependencies: [
        "LatentDiffusionTraining", "LatentDiffusion", "EmojiModel", "LatentDiffusionLayers", "UNet", "Autoencoder", "TextEncoder",
        "Schedulers",
        "LatentDiffusionWeights",
        "LatentDiffusionComponents", "LatentDiffusionFiles", "Tensor", "LatentDiffusionTestSupport",
      ]),
    .testTarget(name: "ImageFilesTests", dependencies: ["ImageFiles", "LatentDiffusionFiles", "Tensor", "LatentDiffusionTestSupport"]),
    .testTarget(
      name: "VideoFilesTests",
      dependencies: ["LatentDiffusionVideoFiles", "ImageFiles", "LatentDiffusionFiles", "Tensor", "LatentDiffusionTestSupport"]),
    .testTarget(
      name: "TrainingDataTests",
      dependencies: [
        "LatentDiffusionTrainingData", "ImageFiles", "LatentDiffusionComponents", "LatentDiffusionWeights", "LatentDiffusionFiles",
        "Tensor", "LatentDiffusionTestSupport",
      ]),
  ]
)
