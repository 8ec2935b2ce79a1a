class Vote:
    """One instance is made at load, with the definition's init_parameters."""

    def __init__(self, share):
        self.share = share

    def predict(self, votes):
        from rules import carried  # the rules.py of this folder, not of another function

        return carried(votes, self.share)
