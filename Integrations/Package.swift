// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that the library has no dependency: its work is told to swift-log and swift-metrics.
let package = Package(
  name: "LatentDiffusionIntegrations",
  platforms: [.macOS(.v15)],
  products: [
    .library(name: "LatentDiffusionLogging", targets: ["LatentDiffusionLogging"]),
    .library(name: "LatentDiffusionMetrics", targets: ["LatentDiffusionMetrics"]),
  ],
  dependencies: [
    .package(name: "LatentDiffusion", path: ".."),
    .package(url: "https://github.com/apple/swift-log", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.5.0"),
  ],
  targets: [
    .target(
      name: "LatentDiffusionLogging",
      dependencies: [.product(name: "LatentDiffusion", package: "LatentDiffusion"), .product(name: "Logging", package: "swift-log")]),
    .target(
      name: "LatentDiffusionMetrics",
      dependencies: [.product(name: "LatentDiffusion", package: "LatentDiffusion"), .product(name: "Metrics", package: "swift-metrics")]),
    .testTarget(
      name: "IntegrationTests",
      dependencies: [
        "LatentDiffusionLogging", "LatentDiffusionMetrics", .product(name: "LatentDiffusion", package: "LatentDiffusion"),
        .product(name: "EmojiModel", package: "LatentDiffusion"), .product(name: "Logging", package: "swift-log"),
        .product(name: "InMemoryLogging", package: "swift-log"),
        .product(name: "MetricsTestKit", package: "swift-metrics"),
      ]),
  ]
)
