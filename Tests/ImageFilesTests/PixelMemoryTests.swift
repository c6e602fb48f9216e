import Foundation
import ImageFiles
import Testing

/// Pixels of other programs in memory, and back.
@Suite struct PixelMemoryTests {
  private let picture = Picture(width: 2, height: 2, pixels: Array(0..<12))

  @Test func rowsMayHaveGaps() throws {
    let bytes = try picture.bytes(stride: 8)
    #expect(bytes == [0, 1, 2, 3, 4, 5, 0, 0, 6, 7, 8, 9, 10, 11, 0, 0])
    #expect(try Picture(bytes: bytes, width: 2, height: 2, stride: 8, channels: 3) == picture)
    // The last row needs no gap behind it.
    #expect(try Picture(bytes: Array(bytes.dropLast(2)), width: 2, height: 2, stride: 8, channels: 3) == picture)
    #expect(try Picture(bytes: picture.bytes(), width: 2, height: 2, channels: 3) == picture)
  }

  @Test func theStatedSizeNeedsNoPixels() throws {
    for data in [try picture.pngData(), try picture.jpegData(), try picture.webpData()] {
      let size = try Picture.statedSize(of: data)
      #expect(size == (2, 2))
      #expect(throws: ImageFileError.self) { try Picture.statedSize(of: data.prefix(6)) }
    }
  }

  @Test func everyNumberOfChannelsIsRead() throws {
    let grey = try Picture(bytes: [7, 9], width: 2, height: 1, channels: 1)
    #expect(grey == Picture(width: 2, height: 1, pixels: [7, 7, 7, 9, 9, 9]))
    let greyAlpha = try Picture(bytes: [7, 1, 9, 2], width: 2, height: 1, channels: 2)
    #expect(greyAlpha == Picture(width: 2, height: 1, pixels: [7, 7, 7, 9, 9, 9], alpha: [1, 2]))
    let colourAlpha = try Picture(bytes: [1, 2, 3, 4], width: 1, height: 1, channels: 4)
    #expect(colourAlpha == Picture(width: 1, height: 1, pixels: [1, 2, 3], alpha: [4]))
    #expect(try colourAlpha.bytes(channels: 4) == [1, 2, 3, 4])
    #expect(try picture.bytes(channels: 4).suffix(4) == [9, 10, 11, 255])
  }

  @Test(
    arguments: [
      (2, 2, nil, 0), (2, 2, nil, 5), (0, 2, nil, 3), (2, -1, nil, 3), (1 << 20, 1 << 20, nil, 3), (2, 2, 5, 3), (2, 2, Int.max, 3),
      (3, 2, nil, 3),
      (2, 2, -6, 3),
    ] as [(Int, Int, Int?, Int)])
  func whatMakesNoPictureIsAnError(width: Int, height: Int, stride: Int?, channels: Int) {
    #expect(throws: ImageFileError.self) {
      try Picture(bytes: Array(0..<12), width: width, height: height, stride: stride, channels: channels)
    }
  }

  @Test func whatAPictureCannotBeIsAnError() {
    #expect(throws: ImageFileError.self) { try picture.bytes(channels: 1) }
    #expect(throws: ImageFileError.self) { try picture.bytes(stride: 5) }
    #expect(throws: ImageFileError.self) { try picture.bytes(stride: .max) }
  }
}
