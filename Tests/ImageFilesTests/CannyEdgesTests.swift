import ImageFiles
import LatentDiffusionTestSupport
import Testing

/// Edges against OpenCV's, pixel by pixel.
@Suite struct CannyEdgesTests {
  @Test(
    .compares("Canny's edges", in: .controls, with: "opencv-python-headless", unit: .equality),
    arguments: ["models/inputs/picture", "models/inputs/picture-37x50", "controls/smooth"], ["100-200", "30.7-60.2", "150-50"])
  func equalOpenCV(_ picture: String, _ thresholds: String) throws {
    let numbers = thresholds.split(separator: "-").compactMap { Double($0) }
    let expected = try Picture(
      contentsOf: fixtures.appending(path: "controls/edges-\(picture.split(separator: "/").last ?? "")-\(thresholds).png"))
    let found = try Picture(contentsOf: fixtures.appending(path: "\(picture).png")).cannyEdges(low: numbers[0], high: numbers[1])
    expectSame(found.pixels, expected.pixels)
    #expect(found.pixels.contains(255) && found.pixels.contains(0))
  }

  /// Thresholds of any kind, and pictures without neighbours.
  @Test func nothingTraps() {
    let pixel = Picture(width: 1, height: 1, pixels: [1, 2, 3])
    for value in [Double.nan, .infinity, -.infinity, -1, 1e300] {
      #expect(pixel.cannyEdges(low: value, high: value).pixels == [0, 0, 0])
    }
  }
}
