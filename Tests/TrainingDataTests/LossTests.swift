import Foundation
import LatentDiffusionFiles
import LatentDiffusionTestSupport
import LatentDiffusionTrainingData
import Testing

#if canImport(FoundationXML)
  import FoundationXML
#endif

@Suite struct LossLogTests {
  @Test func linesAreAddedAndRead() throws {
    let folder = try TemporaryFolder(), url = folder.url.appending(path: "loss.csv")
    let log = try LossLog(at: url, columns: ["loss", "learning_rate"])
    try log.append(step: 1, [0.25, 1e-4])
    try log.append(step: 2, [.nan, nil])
    #expect(try String(contentsOf: url, encoding: .utf8) == "step,loss,learning_rate\n1,0.25,0.0001\n2,nan,\n")
    let read = try LossLog.read(url)
    #expect(read.columns == ["loss", "learning_rate"])
    #expect(read.rows[0] == .init(step: 1, values: [0.25, 1e-4]))
    #expect(read.rows[1].values[0]?.isNaN == true && read.rows[1].values[1] == nil)
  }

  @Test func aRunGoesOnAfterItsState() throws {
    let folder = try TemporaryFolder(), url = folder.url.appending(path: "loss.csv")
    let log = try LossLog(at: url, columns: ["loss"])
    for step in 1...9 { try log.append(step: step, [Double(step)]) }
    // It was killed while it wrote a line.
    try (Data(contentsOf: url) + Data("10,1".utf8)).write(to: url)
    let next = try LossLog(at: url, columns: ["loss"], after: 6)
    try next.append(step: 7, [70])
    #expect(try LossLog.read(url).rows.map(\.step) == [1, 2, 3, 4, 5, 6, 7])
    #expect(try LossLog.read(url).rows.last?.values == [70])
    _ = try LossLog(at: url, columns: ["loss"])
    #expect(try LossLog.read(url).rows.isEmpty)
    _ = try LossLog(at: folder.url.appending(path: "new.csv"), columns: ["loss"], after: 6)
  }

  @Test func otherFilesAreNotContinued() throws {
    let folder = try TemporaryFolder()
    for (name, text) in [
      ("a.csv", "file_name,text\na.png,x\n"), ("b.csv", "step,other\n1,2\n"), ("c.csv", "step,loss\n1,x\n"), ("d.csv", "step,loss\n1\n"),
      ("e.csv", ""),
    ] {
      let url = try folder.write(name, text)
      #expect(throws: TrainingDataError.self) { try LossLog(at: url, columns: ["loss"], after: 1) }
      #expect(try String(contentsOf: url, encoding: .utf8) == text)
    }
    #expect(throws: FileWriteError.self) { try LossLog(at: folder.url.appending(path: "none/a.csv"), columns: ["loss"]) }
    let url = folder.url.appending(path: "gone.csv"), log = try LossLog(at: url, columns: ["loss"])
    try FileManager.default.removeItem(at: url)
    #expect(throws: FileWriteError.self) { try log.append(step: 1, [1]) }
  }
}

/// What an XML parser finds in a drawing.
private final class Drawing: NSObject, XMLParserDelegate {
  private(set) var texts: [String] = []
  private(set) var paths: [String: [[Double]]] = [:]
  private(set) var elements: [String: Int] = [:]
  private var text: String?
  private(set) var isValid = false

  init(_ svg: String) {
    super.init()
    let parser = XMLParser(data: Data(svg.utf8))
    parser.delegate = self
    isValid = parser.parse()
  }

  func parser(
    _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?, attributes: [String: String]
  ) {
    elements[name, default: 0] += 1
    if name == "text" { text = "" }
    if name == "path", let kind = attributes["class"], let line = attributes["d"] {
      paths[kind] = line.dropFirst().split(separator: "L").map { $0.split(separator: " ").compactMap { Double($0) } }
    }
  }

  func parser(_ parser: XMLParser, foundCharacters string: String) { text? += string }

  func parser(_ parser: XMLParser, didEndElement name: String, namespaceURI: String?, qualifiedName: String?) {
    if name == "text", let text { texts.append(text) }
    if name == "text" { text = nil }
  }
}

@Suite struct LossPlotTests {
  @Test func pointsAreWhereTheyBelong() throws {
    let plot = LossPlot(title: "A & <b> \"c\"\u{1}", points: [(0, 1), (50, 0.5), (100, 0)], smoothing: 0)
    let drawing = Drawing(plot.svg)
    #expect(drawing.isValid)
    let raw = try #require(drawing.paths["raw"]), smooth = try #require(drawing.paths["smooth"])
    #expect(raw == [[76, 50], [420, 221], [764, 392]])
    #expect(smooth == raw)
    #expect(drawing.texts.contains("A & <b> \"c\""))
    for label in ["0", "20", "40", "60", "80", "100", "0.0", "0.2", "0.4", "0.6", "0.8", "1.0", "step", "loss"] {
      #expect(drawing.texts.contains(label), "\(label) is not among \(drawing.texts)")
    }
    #expect(drawing.elements["svg"] == 1 && drawing.elements["line"] == 14)
    #expect(plot.svg.contains("prefers-color-scheme: dark"))
  }

  @Test func theMeanHasNoBiasAtItsBeginning() {
    #expect(LossPlot.smoothed([4, 4, 4], by: 0.9).allSatisfy { abs($0 - 4) < 1e-12 })
    // (0.9 · 0.1 · 1 + 0.1 · 3) / (0.1 + 0.9 · 0.1)
    #expect(abs(LossPlot.smoothed([1, 3], by: 0.9)[1] - 0.39 / 0.19) < 1e-12)
    #expect(LossPlot.smoothed([], by: 0.9).isEmpty)
  }

  @Test func oddLossesAreDrawn() throws {
    for points in [
      [], [(7, 0.3)], [(1, 2.0), (2, 2.0)], [(1, .nan), (2, .infinity)], [(1, .leastNonzeroMagnitude), (2, 0)], [(1, 1e299), (2, -1e299)],
      [(1, 5e-7), (2, 4e-7)],
      [(3, 1.0), (4, 1 + 1e-15)], [(Int.max - 1, 1.0), (Int.max, 3e9)],
    ] as [[(step: Int, loss: Double)]] {
      let drawing = Drawing(LossPlot(points: points).svg)
      #expect(drawing.isValid)
      for point in (drawing.paths["raw"] ?? []) + (drawing.paths["smooth"] ?? []) {
        #expect(point.count == 2 && (76...764).contains(point[0]) && (50...392).contains(point[1]), "\(points): \(point)")
      }
    }
    #expect(Drawing(LossPlot(points: [(1, .nan), (2, 1)]).svg).texts.contains { $0.contains("1 no numbers") })
    #expect(Drawing(LossPlot(points: []).svg).texts.contains("no losses"))
  }

  @Test func manyPointsKeepTheirPeaks() throws {
    var points = (0..<50_000).map { (step: $0, loss: 1 + 0.1 * sin(Double($0))) }
    points[31_234].loss = 9
    let svg = LossPlot(points: points).svg
    let raw = try #require(Drawing(svg).paths["raw"])
    #expect(raw.count <= 1400)
    #expect(raw.count { $0[1] < 120 } == 1)
    #expect(svg.utf8.count < 60_000)
  }
}
