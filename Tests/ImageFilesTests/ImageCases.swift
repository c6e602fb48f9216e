import Foundation
import ImageFiles
import LatentDiffusionTestSupport
import Testing

let folder = fixtures.appending(path: "images")

/// What `make_images.py` says about the pictures beside it.
struct ImageCases: Decodable {
  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    let file: String
    let width: Int?
    let height: Int?
    let pixels: Data
    let alpha: Data?
    let tolerance: Int?
    let filter: String?
    let background: [UInt8]?

    var url: URL { folder.appending(path: file) }
    var testDescription: String { [file, filter, width.map { "\($0)×\(height ?? 0)" }].compactMap(\.self).joined(separator: " ") }
  }
  struct Text: Decodable, Sendable {
    let file: String
    let text: String
    let chunk: Data
  }
  struct Rounding: Decodable, Sendable {
    let values: Data
    let pixels: Data
  }

  let reading: [Case]
  let flattening: [Case]
  let luminance: [Case]
  let resizing: [Case]
  let text: [Text]
  let rounding: Rounding
  let broken: [String]

  static let all: ImageCases = {
    do {
      return try JSONDecoder().decode(ImageCases.self, from: Data(contentsOf: folder.appending(path: "images.json")))
    } catch {
      preconditionFailure("images.json cannot be read: \(error)")
    }
  }()
}

/// Fails where two planes of samples differ by more than the tolerance, and says where they differ most.
func expectSamples(
  _ found: [UInt8], equal expected: Data, within tolerance: Int = 0, sourceLocation: SourceLocation = #_sourceLocation
) {
  guard found.count == expected.count else {
    Issue.record("\(found.count) samples where \(expected.count) are expected", sourceLocation: sourceLocation)
    return
  }
  let worst = zip(found, expected).enumerated().max {
    abs(Int($0.element.0) - Int($0.element.1)) < abs(Int($1.element.0) - Int($1.element.1))
  }
  guard let worst else { return }
  let difference = abs(Int(worst.element.0) - Int(worst.element.1))
  expect(
    error: Float(difference), atMost: Float(tolerance),
    "sample \(worst.offset) is \(worst.element.0) where \(worst.element.1) is expected", sourceLocation: sourceLocation)
}
