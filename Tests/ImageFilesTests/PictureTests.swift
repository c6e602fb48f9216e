import Foundation
import ImageFiles
import Tensor
import Testing

@Suite struct PictureTests {
  @Test(arguments: ImageCases.all.flattening) func flattensAsPillowPastes(_ expected: ImageCases.Case) throws {
    let colour = try #require(expected.background)
    let flat = try Picture(contentsOf: expected.url).flattened(overRed: colour[0], green: colour[1], blue: colour[2])
    expectSamples(flat.pixels, equal: expected.pixels)
    #expect(flat.alpha == nil)
  }

  @Test(arguments: ImageCases.all.luminance) func luminanceIsPillows(_ expected: ImageCases.Case) throws {
    let picture = try Picture(contentsOf: expected.url)
    let mask = picture.mask()
    #expect(mask.shape == [1, picture.height, picture.width, 1])
    #expect(mask.elements == expected.pixels.map { Float($0) / 255 })
  }

  @Test func maskFromAlpha() {
    let picture = Picture(width: 2, height: 1, pixels: [9, 9, 9, 9, 9, 9], alpha: [0, 51])
    #expect(picture.mask(from: .alpha).elements == [0, 0.2])
    #expect(picture.withoutAlpha.mask(from: .alpha).elements == [1, 1])
  }

  @Test func tensorIsFlatAndFromNoughtToOne() {
    let picture = Picture(width: 2, height: 1, pixels: [0, 51, 255, 10, 20, 30], alpha: [255, 0])
    let tensor = picture.tensor()
    #expect(tensor.shape == [1, 1, 2, 3])
    #expect(tensor.elements == [0, 0.2, 1, 1, 1, 1])
    #expect(picture.withoutAlpha.tensor().elements.suffix(3) == [Float(10) / 255, Float(20) / 255, Float(30) / 255])
  }

  @Test func roundsAsDiffusersDoes() throws {
    let rounding = ImageCases.all.rounding
    let values = rounding.values.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    let picture = Picture(Tensor(values, shape: [1, 16, 16, 3]))
    expectSamples(picture.pixels, equal: rounding.pixels)
  }

  @Test func clampsWhatIsNoColourAndFindsItsPlaceInABatch() {
    let tensor = Tensor([0, 0, 0, .nan, -.infinity, .infinity], shape: [2, 1, 1, 3])
    #expect(Picture(tensor, index: 1) == Picture(width: 1, height: 1, pixels: [0, 0, 255]))
    #expect(Picture(tensor) == Picture(width: 1, height: 1, pixels: [0, 0, 0]))
  }

  @Test func everyByteSurvivesATensor() {
    let picture = Picture(width: 16, height: 16, pixels: (0..<768).map { UInt8($0 % 256) })
    #expect(Picture(picture.tensor()) == picture)
  }

  @Test(arguments: ImageCases.all.resizing) func resizesAsPillowDoes(_ expected: ImageCases.Case) throws {
    let filter: Picture.ResizingFilter = expected.filter == "nearest" ? .nearest : .lanczos
    let resized = try Picture(contentsOf: expected.url)
      .resized(width: try #require(expected.width), height: try #require(expected.height), filter: filter)
    #expect((resized.width, resized.height) == (expected.width, expected.height))
    expectSamples(resized.pixels, equal: expected.pixels)
    #expect((resized.alpha == nil) == (expected.alpha == nil))
    if let alpha = resized.alpha, let expectedAlpha = expected.alpha { expectSamples(alpha, equal: expectedAlpha) }
  }
}
