"""What leaves or enters the machine: model cards, and a Hub on this machine to push to and pull from.

``tempclr_hub.card.model_card`` writes a model card from the run alone; ``tempclr_hub.loopback.LoopbackHub`` serves the
real Hub client on 127.0.0.1. Nothing is imported here, so that importing the package costs nothing.
"""
