def carried(votes, share):
    return votes.mean(axis=1) > share
