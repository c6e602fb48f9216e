import Foundation
import ImageFiles
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionTrainingData
import Tensor

/// A picture that no other seed has.
func smallPicture(_ width: Int = 16, _ height: Int = 16, seed: UInt64 = 0) -> Picture {
  var numbers = Numbers(seed: seed)
  return Picture(width: width, height: height, pixels: (0..<width * height * 3).map { _ in UInt8.random(in: 0...255, using: &numbers) })
}

func captioned(_ width: Int = 16, _ height: Int = 16, seed: UInt64 = 0, caption: String = "") -> CaptionedPicture {
  CaptionedPicture(smallPicture(width, height, seed: seed), name: "\(seed)", caption: caption)
}

extension TemporaryFolder {
  /// Files by name: a size is a picture, a text is a text.
  convenience init(_ files: [String: (Int, Int)], _ texts: [String: String] = [:]) throws {
    try self.init()
    for (name, size) in files {
      let picture = smallPicture(size.0, size.1, seed: UInt64(name.utf8.reduce(0) { $0 * 31 % 1_000_003 + Int($1) }))
      let data = name.hasSuffix("jpg") ? try picture.jpegData() : name.hasSuffix("webp") ? try picture.webpData() : try picture.pngData()
      try write(name, data)
    }
    for (name, text) in texts { try write(name, text) }
  }

  func read(_ options: PictureFolder.Options = .init()) throws -> PictureFolder {
    try PictureFolder(url, options: options, in: ExecutionContext(threads: 2))
  }
}

extension PictureFolder {
  /// Captions by name.
  var captions: [String: String] { Dictionary(pictures.map { ($0.name, $0.caption) }) { first, _ in first } }
}
