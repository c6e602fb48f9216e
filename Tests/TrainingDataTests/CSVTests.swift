import LatentDiffusionTestSupport
import LatentDiffusionTrainingData
import Testing

@Suite struct CSVTests {
  private func fields(_ text: String) -> [[String]?] { CSV.records(Array(text.utf8)).map(\.fields) }

  /// As Python's `csv` module reads them.
  @Test(
    arguments: [
      ("a,b\r\nc,d\r\n", [["a", "b"], ["c", "d"]]), ("a,b\nc,d", [["a", "b"], ["c", "d"]]), ("", []), ("\n\r\n", []), ("a", [["a"]]),
      ("a,\n,b\n,\n", [["a", ""], ["", "b"], ["", ""]]), ("\"a,b\",c", [["a,b", "c"]]), ("\"a\"\"b\"\"\",c", [["a\"b\"", "c"]]),
      ("\"two\r\nlines\",x\r\ny,z", [["two\r\nlines", "x"], ["y", "z"]]), ("\"\",\"\"", [["", ""]]), ("a\"b,c\n", [["a\"b", "c"]]),
      (" a , b ", [[" a ", " b "]]), ("größer,🍎\n", [["größer", "🍎"]]), ("a\rb,c\n", [["a\rb", "c"]]),
    ] as [(String, [[String]])])
  func readsRecords(_ text: String, _ expected: [[String]]) {
    #expect(fields(text) == expected)
  }

  @Test func damagedRecordsAreMarkedAndTheRestIsRead() {
    #expect(fields("a,b\n\"x\"y,z\nc,d") == [["a", "b"], nil, ["c", "d"]])
    #expect(fields("a,b\n\"open,z\nc,d") == [["a", "b"], nil])
    #expect(CSV.records(Array("a\n".utf8) + [0xFF, 0x0A] + Array("b".utf8)).map(\.fields) == [["a"], nil, ["b"]])
  }

  @Test func linesAreCounted() {
    #expect(CSV.records(Array("a\n\n\"b\nc\"\nd\r\ne".utf8)).map(\.line) == [1, 3, 5, 6])
  }

  @Test func whatIsWrittenIsRead() {
    let fields = ["", "a", "b,c", "d\"e", "f\ng", "h\r\ni", " j ", "\"", "🍎"]
    #expect(CSV.records(Array((CSV.line(fields) + CSV.line(["x"])).utf8)).map(\.fields) == [fields, ["x"]])
  }
}
