public let nameOfLayers = "Layers of another package"
