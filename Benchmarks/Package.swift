// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that no user of the library fetches what measures it.
let package = Package(
  name: "Benchmarks",
  platforms: [.macOS(.v15)],
  dependencies: [
    .package(name: "LatentDiffusion", path: ".."),
    // Without its interposers, which would count allocations at a cost to every one of them.
    .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.0", traits: []),
  ],
  targets: [
    .executableTarget(
      name: "Engine",
      dependencies: [
        .product(name: "LatentDiffusion", package: "LatentDiffusion"),
        .product(name: "EmojiModel", package: "LatentDiffusion"),
        .product(name: "Benchmark", package: "benchmark"),
      ],
      path: "Benchmarks/Engine",
      plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")])
  ]
)
