// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that only those who want a server fetch what it is built on.
let package = Package(
  name: "ImageServer",
  platforms: [.macOS(.v15)],
  products: [
    .library(name: "ImageServer", targets: ["ImageServer"]),
    .executable(name: "image-server", targets: ["image-server"]),
  ],
  dependencies: [
    .package(name: "LatentDiffusion", path: "../.."),
    .package(name: "LatentDiffusionIntegrations", path: "../../Integrations"),
    .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0", traits: ["FullFoundation"]),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.14.0"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
    .package(url: "https://github.com/apple/swift-nio-extras", from: "1.34.1"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.0.0"),
  ],
  targets: [
    .target(
      name: "ImageServer",
      dependencies: [
        .product(name: "LatentDiffusion", package: "LatentDiffusion"),
        .product(name: "EmojiModel", package: "LatentDiffusion"),
        .product(name: "ImageFiles", package: "LatentDiffusion"),
        .product(name: "LatentDiffusionLogging", package: "LatentDiffusionIntegrations"),
        .product(name: "Hummingbird", package: "hummingbird"),
        .product(name: "HummingbirdCore", package: "hummingbird"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
        .product(name: "HTTPTypes", package: "swift-http-types"),
      ],
      resources: [.copy("Resources/Page"), .copy("Resources/openapi.json")]),
    .executableTarget(
      name: "image-server",
      dependencies: [
        "ImageServer",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "LatentDiffusion", package: "LatentDiffusion"),
        .product(name: "Logging", package: "swift-log"),
      ],
      path: "Sources/Program"),
  ]
)
