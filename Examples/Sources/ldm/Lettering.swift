import Foundation
import ImageFiles

/// Letters of 8×16 pixels for labels in pictures: Latin, Greek and Cyrillic. Other characters are boxes.
enum Lettering {
  static let width = 8, height = 16

  private static let rows = Data(base64Encoded: glyphs).map(Array.init) ?? []
  private static let box: [UInt8] = [0, 0, 0x7E] + [UInt8](repeating: 0x42, count: 10) + [0x7E, 0, 0]

  /// The rows of a character.
  private static func glyph(_ character: Character) -> ArraySlice<UInt8> {
    // An accent may stand behind its letter; together they are one character here.
    let scalar = String(character).precomposedStringWithCanonicalMapping.unicodeScalars
    guard scalar.count == 1, let code = scalar.first?.value else { return box[...] }
    var index = 0
    for range in ranges {
      if range.contains(code) {
        let start = (index + Int(code - range.lowerBound)) * height
        return rows.indices.contains(start + height - 1) ? rows[start..<start + height] : box[...]
      }
      index += range.count
    }
    return box[...]
  }

  /// A text in lines of at most so many characters, broken at spaces where there are some. What does not fit into the lines ends in three dots.
  static func lines(_ text: String, width: Int, most: Int) -> [String] {
    var lines = [""]
    for word in text.split(separator: " ") {
      var word = word[...]
      if !lines[lines.count - 1].isEmpty, lines[lines.count - 1].count + 1 + word.count <= width {
        lines[lines.count - 1] += " " + word
        continue
      }
      if !lines[lines.count - 1].isEmpty { lines.append("") }
      while word.count > width {
        lines[lines.count - 1] = String(word.prefix(width))
        word = word.dropFirst(width)
        lines.append("")
      }
      lines[lines.count - 1] = String(word)
    }
    guard lines.count > most else { return lines }
    lines = Array(lines.prefix(most))
    lines[most - 1] = lines[most - 1].prefix(max(0, width - 1)) + "…"
    return lines
  }

  /// Writes a line in black.
  static func draw(_ line: String, x: Int, y: Int, into canvas: inout Canvas) {
    for (place, character) in line.enumerated() {
      for (row, bits) in glyph(character).enumerated() {
        for column in 0..<width where bits >> (7 - column) & 1 == 1 { canvas.blacken(x: x + place * width + column, y: y + row) }
      }
    }
  }
}

/// A white picture that others are put into.
struct Canvas {
  let width, height: Int
  private var pixels: [UInt8]

  init(width: Int, height: Int) {
    (self.width, self.height) = (width, height)
    pixels = [UInt8](repeating: 255, count: width * height * 3)
  }

  var picture: Picture { Picture(width: width, height: height, pixels: pixels) }

  mutating func blacken(x: Int, y: Int) {
    guard (0..<width).contains(x), (0..<height).contains(y) else { return }
    for channel in 0..<3 { pixels[(y * width + x) * 3 + channel] = 0 }
  }

  /// What sticks out is cut off.
  mutating func put(_ picture: Picture, x: Int, y: Int) {
    let picture = picture.flattened(), columns = min(picture.width, width - x)
    guard columns > 0 else { return }
    for row in 0..<min(picture.height, height - y) {
      let start = ((y + row) * width + x) * 3, from = row * picture.width * 3
      pixels.replaceSubrange(start..<start + columns * 3, with: picture.pixels[from..<from + columns * 3])
    }
  }
}
