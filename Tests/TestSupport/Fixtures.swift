import Foundation

/// The folder `Tests/Fixtures`.
public let fixtures = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(path: "Fixtures")
