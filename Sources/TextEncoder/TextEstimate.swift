import Tensor

extension CLIPTextShape {
  /// Follows a pass of `CLIPTextModel` over `n` texts of the greatest length.
  package func follow(_ work: inout WorkEstimate, n: Int) {
    let rows = n * positions
    work.hold(rows * hidden)
    for _ in 0..<layers {
      work.hold(rows * hidden)
      for _ in 0..<3 { work.linear(rows: rows, inputs: hidden, outputs: hidden) }
      work.attention(n: n, length: positions, others: positions, heads: heads, width: hidden / heads)
      work.linear(rows: rows, inputs: hidden, outputs: hidden)
      work.linear(rows: rows, inputs: hidden, outputs: intermediate)
      work.linear(rows: rows, inputs: intermediate, outputs: hidden)
      for _ in 0..<7 { work.drop(rows * hidden) }
      work.drop(rows * intermediate)
    }
  }
}
