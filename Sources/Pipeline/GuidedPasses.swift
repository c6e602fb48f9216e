import LatentDiffusionComponents
import Tensor

/// The passes of a step: which rows go through the predictor together, and how they become predictions for the guidance.
///
/// Rows whose texts have one length share a pass. A text of several parts is several rows, which are added up.
struct GuidedPasses: Sendable {
  /// What rows of one pass have in common: the length of their texts, nil where all are of one, the predictor, and whether they see degraded latents.
  struct Kind: Hashable {
    private let length: Int?
    private let isPerturbed: Bool
    let isDegraded: Bool

    init(_ row: GuidanceRow, length: Int?) {
      (self.length, isPerturbed, isDegraded) = (length, row.isPerturbed, row.isDegraded)
    }
  }

  /// Rows that go through the predictor together.
  struct Pass: Sendable {
    let predictor: any NoisePredictor
    /// What they see.
    let rows: [GuidanceRow]
    /// Which of all rows they are.
    let places: [Int]
    /// With `rows.count · N` rows.
    fileprivate let told: Timeline<Conditioning>
    fileprivate let start: Int

    /// - Parameter step: an index into the scheduler's timesteps.
    func conditioning(at step: Int) -> Conditioning { told[step - start] }
  }

  /// A row of a step.
  fileprivate struct Row: Sendable {
    /// The guidance's row that it belongs to.
    let kind: Int
    let part: SpokenPart
  }

  /// What steps with the same rows of the guidance have in common.
  struct Stage: Sendable {
    /// Indices of its passes.
    let passes: Range<Int>
    fileprivate let kinds: [GuidanceRow]
    fileprivate let rows: [Row]

    /// Rows of all its passes, for each picture.
    var count: Int { rows.count }

    /// Where among all its rows one of the guidance's is; nil: nowhere.
    func place(of row: GuidanceRow) -> Int? { rows.firstIndex { kinds[$0.kind] == row } }
  }

  /// Of all stages.
  private(set) var passes: [Pass] = []
  private var stages: [Stage] = []
  /// The stage of each step.
  private var order: [Int] = []

  /// - Parameters:
  ///   - guidance: whose rows are predicted.
  ///   - steps: that are run.
  ///   - texts: what each text of its rows says.
  ///   - start: the step from which prompts count theirs.
  ///   - predictor: for rows that see this.
  ///   - completed: a conditioning with all that rows have in common, checked.
  /// - Throws: `ComponentError` where rows of one length differ otherwise, and what `completed` throws.
  init(
    _ guidance: any Guidance, steps: Int, saying texts: [GuidanceRow.Text: [SpokenPart]], from start: Int,
    predictor: ([GuidanceRow]) -> any NoisePredictor, completed: (Conditioning, _ rows: Int) throws -> Conditioning
  ) throws {
    for step in 0..<steps {
      let kinds = guidance.rows(at: step, of: steps)
      if let known = stages.firstIndex(where: { $0.kinds == kinds }) {
        order.append(known)
        continue
      }
      let rows = kinds.indices.flatMap { kind in (texts[kinds[kind].text] ?? []).map { Row(kind: kind, part: $0) } }
      let own = try Self.groups(of: rows, kinds).map { places in
        let own = places.map { rows[$0] }, seen = own.map { kinds[$0.kind] }
        let told = try Timeline.joined(own.map(\.part.told)) { try completed(.concatenated($0), own.count) }
        return Pass(predictor: predictor(seen), rows: seen, places: places, told: told, start: start)
      }
      order.append(stages.count)
      stages.append(Stage(passes: passes.count..<passes.count + own.count, kinds: kinds, rows: rows))
      passes += own
    }
  }

  /// Places of rows that can share a pass. How latents are degraded follows from other passes, so those come first.
  private static func groups(of rows: [Row], _ kinds: [GuidanceRow]) -> [[Int]] {
    var groups: [(kind: Kind, places: [Int])] = []
    for (place, row) in rows.enumerated() {
      let kind = Kind(kinds[row.kind], length: row.part.told.values[0].length)
      if let known = groups.firstIndex(where: { $0.kind == kind }) {
        groups[known].places.append(place)
      } else {
        groups.append((kind, [place]))
      }
    }
    return (groups.filter { !$0.kind.isDegraded } + groups.filter(\.kind.isDegraded)).map(\.places)
  }

  /// - Parameter step: from 0, of those that are run.
  func stage(at step: Int) -> Stage { stages[order[step]] }

  /// The row from which the parts of another one are measured: that of the negative prompt which sees the same. Nil where there is none.
  static func origin(of row: GuidanceRow, in kinds: [GuidanceRow]) -> Int? {
    kinds.firstIndex { $0.text == .negativePrompt && $0.seesPicture == row.seesPicture && $0.isDegraded == row.isDegraded }
  }
}

extension GuidedPasses.Stage {
  /// The predictions of the guidance's rows in its steps.
  ///
  /// A text of several parts is predicted as far from the negative prompt as the sum of its parts is, each by its weight. Source: `combine_denoised` of
  /// stable-diffusion-webui; Liu et al. 2022 (arXiv:2206.01714).
  /// - Parameter predictions: `[N, h, w, C]` for all rows.
  func combined(_ predictions: [Tensor]) -> [Tensor] {
    kinds.indices.map { kind in
      let own = rows.indices.filter { rows[$0].kind == kind }
      if own.count == 1, rows[own[0]].part.weights.allSatisfy({ $0 == 1 }) { return predictions[own[0]] }
      guard let origin = GuidedPasses.origin(of: kinds[kind], in: kinds), let base = rows.firstIndex(where: { $0.kind == origin }) else {
        return predictions[own[0]]
      }
      return own.reduce(predictions[base]) { $0 + Self.scaled(predictions[$1] - predictions[base], by: rows[$1].part.weights) }
    }
  }

  private static func scaled(_ tensor: Tensor, by weights: [Float]) -> Tensor {
    guard Set(weights).count > 1 else { return weights[0] * tensor }
    return Tensor.concatenated(weights.indices.map { weights[$0] * tensor.rows($0..<$0 + 1) }, axis: 0)
  }
}
