"""Trains the network on the digits of scikit-learn, in seconds, and writes weights.pt."""

from pathlib import Path

import torch
from model import network
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

if __name__ == "__main__":
    torch.manual_seed(1)
    torch.set_num_threads(1)  # more of them cost more than so small a network gains
    digits = load_digits()
    pictures = torch.from_numpy(digits.images).float()[:, None] / 16
    seen, unseen, names, true = train_test_split(
        pictures, torch.from_numpy(digits.target), test_size=0.2, random_state=1
    )
    trained = network()
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.003)
    for _ in range(30):
        for batch in torch.randperm(len(seen)).split(64):
            optimizer.zero_grad()
            scores = trained(seen[batch])
            torch.nn.functional.cross_entropy(scores, names[batch]).backward()
            optimizer.step()
    with torch.inference_mode():
        right = (trained(unseen).argmax(1) == true).float().mean()
    torch.save(trained.state_dict(), Path(__file__).with_name("weights.pt"))
    print(f"{right:.1%} of {len(true)} digits that it has not seen")
