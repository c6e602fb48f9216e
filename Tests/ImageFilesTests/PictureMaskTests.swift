import Foundation
import ImageFiles
import LatentDiffusionTestSupport
import Tensor
import Testing

/// What `make_masks.py` says about masks.
struct MaskCases: Decodable {
  struct Blur: Decodable, Sendable, CustomTestStringConvertible {
    let mask: Data
    let x: Double
    let y: Double
    let values: Data
    var testDescription: String { "\(x) × \(y)" }
  }
  struct Painted: Decodable, Sendable {
    let mask: Data
    let filled: Data
    let laid: Data
    let squares: Data
  }

  let width: Int
  let height: Int
  let blurs: [Blur]
  let picture: Data
  let other: Data
  let painted: [Painted]

  static let all: MaskCases = {
    do {
      return try JSONDecoder().decode(MaskCases.self, from: Data(contentsOf: folder.appending(path: "masks.json")))
    } catch {
      preconditionFailure("masks.json cannot be read: \(error)")
    }
  }()

  func mask(_ values: Data) -> PictureMask { PictureMask(width: width, height: height, values: Array(values)) }
  func picture(_ pixels: Data) -> Picture { Picture(width: width, height: height, pixels: Array(pixels)) }
}

/// Masks and what they hide against OpenCV's and Pillow's values, by the steps of stable-diffusion-webui.
@Suite struct PictureMaskTests {
  private let cases = MaskCases.all

  @Test(arguments: MaskCases.all.blurs) func blursAsOpenCVDoes(_ expected: MaskCases.Blur) {
    let found = cases.mask(expected.mask).blurred(horizontally: expected.x, vertically: expected.y)
    expectSamples(found.values, equal: expected.values)
  }

  @Test(arguments: 0..<4) func fillsWhatAMaskHidesAsPillowDoes(_ index: Int) {
    let expected = cases.painted[index]
    expectSamples(cases.picture(cases.picture).filled(where: cases.mask(expected.mask)).pixels, equal: expected.filled)
  }

  @Test(arguments: 0..<4) func laysAPictureOnAnotherAsPillowDoes(_ index: Int) {
    let expected = cases.painted[index]
    let found = cases.picture(cases.picture).laid(on: cases.picture(cases.other), except: cases.mask(expected.mask))
    expectSamples(found.pixels, equal: expected.laid)
  }

  @Test(arguments: 0..<4) func roundsAMaskForLatents(_ index: Int) {
    let expected = cases.painted[index], columns = cases.width / 8, rows = cases.height / 8
    let found = cases.mask(expected.mask).rounded(inSquaresOf: 8)
    #expect((found.width, found.height) == (cases.width, cases.height))
    for y in 0..<cases.height {
      for x in 0..<cases.width {
        let square = min(y / 8, rows - 1) * columns + min(x / 8, columns - 1)
        #expect(found.values[y * cases.width + x] == expected.squares[square], "\(x), \(y)")
      }
    }
  }

  @Test func whatABlackMaskLeavesIsThePicture() {
    let picture = cases.picture(cases.picture), other = cases.picture(cases.other), mask = cases.mask(cases.painted[0].mask)
    #expect(picture.laid(on: other, except: mask.map { _ in 0 }) == picture)
    #expect(picture.laid(on: other, except: mask.map { _ in 255 }) == other)
    #expect(picture.filled(where: mask.map { _ in 0 }) == picture)
    #expect(picture.filled(where: mask.map { _ in 255 }).pixels.allSatisfy { $0 == 0 })
  }

  /// Lines of one pixel have no neighbours, and the blur of a flat mask is flat.
  @Test func smallMasks() {
    for (width, height) in [(1, 1), (1, 5), (5, 1)] {
      let mask = PictureMask(width: width, height: height, values: Array(repeating: 200, count: width * height))
      #expect(mask.blurred(horizontally: 4, vertically: 0.7) == mask)
      #expect(mask.rounded(inSquaresOf: 8).values.allSatisfy { $0 == 255 })
      let picture = Picture(width: width, height: height, pixels: Array(repeating: 90, count: width * height * 3))
      #expect(picture.filled(where: mask.map { _ in 0 }) == picture)
      #expect(Set(picture.filled(where: mask).pixels).count == 1)
    }
    #expect(PictureMask(Picture(width: 1, height: 1, pixels: [255, 0, 0])).values == [76])
    #expect(PictureMask(Picture(width: 1, height: 1, pixels: [0, 0, 0], alpha: [7]), from: .alpha).tensor().elements == [Float(7) / 255])
  }
}
